/* Products with the sparse part S (m, n) of the output gradient and its transpose (common.h), whose terms are named by
 * `which` row and by the place of their weight. Twins: the methods of TargetPlan. */
#include "common.h"

enum { COLUMNS = 256, AHEAD = 4, SOME = 32 }; /* columns at a time; terms that are fetched ahead; sums of a task */

/* Sums of `weights` at `order`, or one after the other without it, times `rows` (…, d) at `which`. */
typedef struct {
    const Int *offsets, *which, *order;
    const float *weights, *rows;
    Int d;
} Terms;

static inline float weight_of(const Terms *t, Int k) { return t->weights[t->order ? t->order[k] : k]; }

/* out (count,) = Σ of the terms [begin, end), columns from `first`; four at a time, so that `out` is met less often. */
static void add_terms(const Terms *t, Int begin, Int end, Int first, Int count, float *restrict out) {
    Int k = begin;
    for (Int j = 0; j < count; j++) out[j] = 0.0f;
    for (; k + 4 <= end; k += 4) {
        const float *a = t->rows + t->which[k] * t->d + first, *b = t->rows + t->which[k + 1] * t->d + first;
        const float *c = t->rows + t->which[k + 2] * t->d + first, *e = t->rows + t->which[k + 3] * t->d + first;
        float wa = weight_of(t, k), wb = weight_of(t, k + 1), wc = weight_of(t, k + 2), we = weight_of(t, k + 3);
#pragma omp simd
        for (Int j = 0; j < count; j++) out[j] += (wa * a[j] + wb * b[j]) + (wc * c[j] + we * e[j]);
    }
    for (; k < end; k++) add_scaled(out, t->rows + t->which[k] * t->d + first, weight_of(t, k), count);
}

/* The same, piece by piece, as `bag` in common.h says why. */
static void add_pieces(const Terms *t, Int begin, Int end, Int first, Int count, float *out) {
    float piece[COLUMNS];
    add_terms(t, begin, end < begin + PIECE ? end : begin + PIECE, first, count, out);
    for (Int k = begin + PIECE; k < end; k += PIECE) {
        add_terms(t, k, end < k + PIECE ? end : k + PIECE, first, count, piece);
        add_scaled(out, piece, 1.0f, count);
    }
}

/* Sums number [0, n) of terms, each + a row of `onto` (n, d) if that is given, into out (n, d); gives Σ of all of it.
 * Twins: TargetPlan.times, transposed_times and grown. */
double widehead_sums(int threads, Int n, Int d, const Int *offsets, const Int *which, const Int *order, const float
                     *weights, const float *rows, const float *onto, float *out) {
    Terms terms = {offsets, which, order, weights, rows, d}, *t = &terms;
    double sum = 0.0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, SOME) reduction(+ : sum)
    for (Int i = 0; i < n; i++) {
        for (Int first = 0; first < d; first += COLUMNS) {
            Int count = d - first < COLUMNS ? d - first : COLUMNS;
            float *to = out + i * d + first;
            add_pieces(t, offsets[i], offsets[i + 1], first, count, to);
            if (onto) add_scaled(to, onto + i * d + first, 1.0f, count);
        }
        if (onto) sum += total(out + i * d, d);
    }
    return sum;
}

/* out (m, d) = SSᵀ·right, class by class; each thread has some columns. Twin: TargetPlan.gram_times. */
void widehead_gram(int threads, Int m, Int n, Int d, const Int *class_offsets, const Int *examples_by_class, const Int
                   *by_class, const float *sparse, const float *right, float *out) {
    Terms terms = {class_offsets, examples_by_class, by_class, sparse, right, d}, *t = &terms;
#pragma omp parallel num_threads(threads)
    {
        Range own = mine(d, LINE);
        float sum[COLUMNS];
        for (Int first = own.begin; first < own.end; first += COLUMNS) {
            Int count = own.end - first < COLUMNS ? own.end - first : COLUMNS;
            for (Int b = 0; b < m; b++) memset(out + b * d + first, 0, sizeof(float) * count);
            for (Int i = 0; i < n; i++) {
                Int begin = class_offsets[i], end = class_offsets[i + 1];
                add_pieces(t, begin, end, first, count, sum);
                for (Int k = begin; k < end; k++)
                    add_scaled(out + examples_by_class[k] * d + first, sum, weight_of(t, k), count);
            }
        }
    }
}
