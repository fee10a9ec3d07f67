/* The new small state of a step (parts.h). Twins: SmallState.advanced and with_added. */
#include "parts.h"

/* A row if p is 1: added ← old + alpha·grown and value ← base + added; in `square` and `sum` Σ value² and Σ value. */
static void settle(const Step *s, Int row, const float *grown, float alpha, double *square, double *sum) {
    const float *old = s->small_added + row * s->c, *base = s->small_base + row * s->c;
    float *added = s->added + row * s->c, *value = s->value + row * s->c, squares = 0.0f, numbers = 0.0f;
#pragma omp simd reduction(+ : squares, numbers)
    for (Int i = 0; i < s->c; i++) {
        float more = alpha * grown[i] + old[i], now = base[i] + more;
        added[i] = more;
        value[i] = now;
        squares += now * now;
        numbers += now;
    }
    *square += squares;
    *sum += numbers;
}

/* A row of the sums times mix⊗I, + gain·grown by blocks, in float64, and its rounding. */
static void mix(const Step *s, Int row, const float *grown, const double *mix, const double *gain, double *squares,
                double *sum) {
    Int d = s->d, k = s->c / d;
    const double *first = s->master + row * s->c, *last = first + s->c - d;
    for (Int j = 0; j < k; j++) {
        double *made = s->new_master + row * s->c + j * d, from_last = k > 1 ? mix[k + j] : 0.0;
        float *value = s->value + row * s->c + j * d, square = 0.0f, numbers = 0.0f;
#pragma omp simd reduction(+ : square, numbers)
        for (Int i = 0; i < d; i++) {
            double now = mix[j] * first[i] + from_last * last[i] + gain[j] * grown[i];
            float rounded = (float)now;
            made[i] = now;
            value[i] = rounded;
            square += rounded * rounded;
            numbers += rounded;
        }
        squares[j] += square;
        *sum += numbers;
    }
}

void widehead_grow(const Step *s, Int first, Int count, const float *grown, Found *found) {
    Rule p = rule_of(s);
    Int c = s->c, d = s->d, k = p.k, inverses = 2 * c + 2;
    double numbers[BLOCKS * BLOCKS], gain[BLOCKS], unused[BLOCKS] = {0.0};
    int is_inverse = first >= inverses, is_factor = first < c;
    for (Int j = 0; j < k; j++) {
        gain[j] = is_inverse ? -p.inverse[j * k] : p.gain[j];
        for (Int b = 0; b < k; b++) numbers[b * k + j] = is_inverse ? p.inverse[j * k + b] : p.mix[b * k + j];
    }
    for (Int row = first; row < first + count; row++, grown += d) {
        double *squares = unused, *sum = unused;
        if (is_inverse) squares = found->inverse + (row - inverses) / d * k;
        else if (is_factor) squares = found->factor + row / d * k;
        else if (row < c + 2) sum = &found->known;
        if (s->master) mix(s, row, grown, numbers, gain, squares, sum);
        else settle(s, row, grown, (float)gain[0], squares, sum);
    }
}

typedef float Vector __attribute__((vector_size(4 * LINE), aligned(4), may_alias));
typedef int Places __attribute__((vector_size(4 * LINE)));

/* Exchanges, in each pair of rows that are `step` apart, the parts that belong to the other's side. */
static inline void exchange(Vector *rows, int step) {
    Places first, second;
    for (int k = 0; k < LINE; k++) {
        first[k] = k & step ? LINE + k - step : k;
        second[k] = k & step ? LINE + k : k + step;
    }
    for (int i = 0; i < LINE; i++)
        if (!(i & step)) {
            Vector a = rows[i], b = rows[i + step];
            rows[i] = __builtin_shuffle(a, b, first);
            rows[i + step] = __builtin_shuffle(a, b, second);
        }
}

/* out (LINE, LINE) ← the transpose of the `height` rows and `width` columns at `from` (…, ld), some of LINE. */
static inline void transpose(const float *from, Int ld, Int height, Int width, float *out) {
    if (height < LINE || width < LINE) {
        for (Int a = 0; a < width; a++)
            for (Int b = 0; b < height; b++) out[a * LINE + b] = from[b * ld + a];
        return;
    }
    Vector *rows = (Vector *)out;
    for (int b = 0; b < LINE; b++) rows[b] = *(const Vector *)(from + b * ld);
    exchange(rows, 8);
    exchange(rows, 4);
    exchange(rows, 2);
    exchange(rows, 1);
}

/* Some of the numbers of block (a, j) of Q from number i on, in row r of the block: those of (p⊗I)ᵀQ(p⊗I), + f_j·grown + f_a·
 * turned. */
static float mix_gram(const Step *s, const Rule *p, Int a, Int j, Int r, Int i, Int count, const float *grown,
                      const float *turned) {
    Int c = s->c, d = s->d, k = p->k, across = c - d, down = across * c;
    const double *old = s->master + (c + 2 + r) * c + i;
    double *made = s->new_master + (c + 2 + a * d + r) * c + j * d + i;
    float *value = s->value + (made - s->new_master), sum = 0.0f;
    double from[BLOCKS][BLOCKS] = {{0.0}};
    for (Int b = 0; b < k; b++)
        for (Int e = 0; e < k; e++) from[b][e] = p->mix[b * k + a] * p->mix[e * k + j];
#pragma omp simd reduction(+ : sum)
    for (Int n = 0; n < count; n++) {
        double now = from[0][0] * old[n] + from[0][1] * old[across + n] + from[1][0] * old[down + n] +
                     from[1][1] * old[down + across + n];
        now += p->gain[j] * grown[n] + p->gain[a] * turned[n];
        made[n] = now;
        sum += value[n] = (float)now;
    }
    return sum;
}

/* Rows of Q's value get the transpose of what was added, too; gives Σ of some of them. */
static float turn(const Step *s, Int r, Int i, Int count, const float *turned) {
    float *value = s->value + (s->c + 2 + r) * s->c + i, sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Int n = 0; n < count; n++) sum += value[n] += turned[n];
    return sum;
}

void widehead_grow_gram(const Step *s, Range rows, const float *grown, Found *found) {
    Rule p = rule_of(s);
    Int d = s->d;
    const float *half = s->master ? grown : s->added + (s->c + 2) * s->c;
    float turned[LINE * LINE] __attribute__((aligned(4 * LINE)));
    for (Int r = rows.begin; r < rows.end; r += LINE)
        for (Int j = 0; j < p.k; j++)
            for (Int i = 0; i < d; i += LINE) {
                Int height = rows.end - r < LINE ? rows.end - r : LINE, width = d - i < LINE ? d - i : LINE;
                transpose(half + (j * d + i) * d + r, d, width, height, turned);
                for (Int n = 0; n < height; n++) {
                    if (!s->master) found->known += turn(s, r + n, i, width, turned + n * LINE);
                    for (Int a = 0; s->master && a < p.k; a++)
                        found->known += mix_gram(s, &p, a, j, r + n, i, width, grown + (a * d + r + n) * d + i,
                                                 turned + n * LINE);
                }
            }
}
