/* The exact step of float32 weights on the CPU if there are more examples than columns: sums over the examples first, which
 * may be added up over processes, then products of d × d numbers; each in one parallel region (common.h). Letters:
 * B = HᵀΛHr, P = (NW)ᵀHr with N = σ1ᵀ + S. */
#include "parts.h"

enum { STRIP = 64, MEANS = 5 }; /* rows of a task; vectors that Hr is multiplied with */

/* What stands in `work`: B, P and the square of SᵀHr, (d, d) each, then what follows from them, then numbers of examples. */
typedef struct {
    float *curvature, *others, *square, *totals, *outputs, *half, *solver, *inner, *spare, *scaled, *named, *means;
} Work;

static Work work_of(const Step *s) {
    Int md = s->m * s->d, dd = s->d * s->d;
    Work w;
    w.curvature = s->work;
    w.others = w.curvature + dd;
    w.square = w.others + dd;
    w.outputs = w.square + dd;
    w.half = w.outputs + dd;
    w.solver = w.half + dd;
    w.inner = w.solver + dd;
    w.spare = w.inner + dd;
    w.totals = w.spare + dd;
    w.scaled = w.totals + MEANS * s->d;
    w.named = w.scaled + md;
    w.means = w.named + md;
    return w;
}

/* Numbers that `work` should hold. */
Int widehead_columns_work(Int m, Int d) { return 2 * m * d + MEANS * (m + d) + 8 * d * d; }

/* A ← A⁻¹ of an A (n, n) near I by halves, without an exchange of rows; `work` holds n² numbers. Other than 0 if a pivot
 * is not above 0. */
static int inverse(Int n, float *a, Int ld, float *work) {
    if (n <= LEAF) return widehead_leaf_inverse(n, a, ld);
    Int h = (n / 2 + LINE - 1) / LINE * LINE, k = n - h;
    float *beside = a + h, *below = a + h * ld, *last = below + h, *right = work, *left = work + h * k;
    if (inverse(h, a, ld, work)) return 1;
    product(0, 0, h, k, h, 1.0f, a, ld, beside, ld, 0.0f, right, k);
    product(0, 0, k, h, h, 1.0f, below, ld, a, ld, 0.0f, left, h);
    product(0, 0, k, k, h, -1.0f, below, ld, right, k, 1.0f, last, ld);
    if (inverse(k, last, ld, left + k * h)) return 1;
    product(0, 0, h, k, k, -1.0f, right, k, last, ld, 0.0f, beside, ld);
    product(0, 0, k, h, k, -1.0f, last, ld, left, h, 0.0f, below, ld);
    product(0, 0, h, h, k, -1.0f, beside, ld, left, h, 1.0f, a, ld);
    return 0;
}

/* S = (I + gain·B)⁻¹, with the mean of 1/σ − 1 over its directions; other than 0 if it is not good to float32's digits,
 * which one product with a vector shows. */
static int invert_system(const Step *s, const Work *w, double *contraction) {
    Int d = s->d;
    float gain = (float)s->gain, *sums = w->spare;
    for (Int i = 0; i < d * d; i++) w->solver[i] = gain * w->curvature[i];
    for (Int i = 0; i < d; i++) w->solver[i * d + i] += 1.0f;
    if (inverse(d, w->solver, d, w->spare)) return 1;
    double trace = 0.0, size = 0.0, missing = 0.0;
    for (Int i = 0; i < d; i++) sums[i] = total(w->solver + i * d, d); /* S·1 */
    for (Int i = 0; i < d; i++) {
        double left = sums[i] + gain * dot(w->curvature + i * d, sums, d) - 1.0;
        missing += left * left;
        size += (double)sums[i] * sums[i];
        trace += w->solver[i * d + i];
    }
    *contraction = (trace - d) / d;
    return !(missing <= 1e-10 * (size + d)); /* NaN too */
}

/* What Hr is multiplied with, of each example: ΛHr, SSᵀHr, and for ω, w̄ and, with σ, the square of N what _fill_means and
 * ExampleSums.square in Python say. */
static void begin_step(const Step *s, const Work *w) {
    Int m = s->m, d = s->d, width = 2 * d + 2, left_width = s->constant ? d + 2 : d + 1;
    Range examples = mine(m, 1);
    for (Int b = examples.begin; b < examples.end; b++) {
        const float *row = s->hr + b * d, *read = s->products + b * width + d;
        float *scaled = w->scaled + b * d, *means = w->means + b * MEANS, factor = s->by_squared_norm[b];
        float sums = s->left[b * left_width + d], constant = s->constant ? s->constant[b] : 0.0f;
#pragma omp simd
        for (Int j = 0; j < d; j++) scaled[j] = factor * row[j];
        means[2] = constant, means[4] = sums, means[3] = sums + (float)(s->num_classes * constant);
        means[0] = factor * read[0] + constant;
        means[1] = factor * read[1] + means[3];
    }
    Terms terms = terms_by_class(s, s->hr);
    widehead_gram_columns(&terms, mine(d, LINE), m, s->n, w->named);
}

/* B and P of the step's own examples, the square of SᵀHr and the products with means of all, a part of their rows or columns
 * for each thread. Of what is symmetric, and meets its transpose, the upper half is made twice as large and the lower is
 * left out. */
static void sum_examples(const Step *s, const Work *w) {
    Int m = s->m, d = s->d, some = s->end - s->first, first = s->first * d;
    Range own = mine(d, LINE);
    Int count = own.end - own.begin, rest = d - own.end;
    product(1, 0, count, d, some, 1.0f, s->hidden + first + own.begin, d, w->scaled + first, d, 0.0f,
            w->curvature + own.begin * d, d);
    product(1, 0, count, d, some, 1.0f, s->others + own.begin, d, s->hr + first, d, 0.0f, w->others + own.begin * d, d);
    product(1, 0, MEANS, count, m, 1.0f, w->means, MEANS, s->hr + own.begin, d, 0.0f, w->totals + own.begin, d);
    for (Int i = own.begin; i < own.end; i++) memset(w->square + i * d, 0, sizeof(float) * own.begin);
    product(1, 0, count, count, m, 1.0f, w->named + own.begin, d, s->hr + own.begin, d, 0.0f,
            w->square + own.begin * d + own.begin, d);
    product(1, 0, count, rest, m, 2.0f, w->named + own.begin, d, s->hr + own.end, d, 0.0f,
            w->square + own.begin * d + own.end, d);
}

/* Rows of what U grows by, gain·UB, and of (TW)ᵀHr = P + QB, with ½(P + (TW)ᵀHr). */
static void times_curvature(const Step *s, const Work *w, Int begin, Int count) {
    Int d = s->d, first = begin * d;
    const float *small = s->inverse_rows - (2 * d + 2) * d;
    product(0, 0, count, d, d, (float)s->gain, small + first, d, w->curvature, d, 0.0f, s->added + first, d);
    memcpy(w->outputs + first, w->others + first, sizeof(float) * count * d);
    product(0, 0, count, d, d, 1.0f, small + (d + 2) * d + first, d, w->curvature, d, 1.0f, w->outputs + first, d);
    for (Int i = first; i < first + count * d; i++) w->half[i] = 0.5f * (w->others[i] + w->outputs[i]);
}

/* Rows of what Q grows by, up to what is lost in A + Aᵀ: gain·((TW)ᵀHr + ½ gain·HrᵀTTᵀHr), and of gain·SU⁻¹. */
static void finish_gram(const Step *s, const Work *w, Range own) {
    Int d = s->d, count = own.end - own.begin, first = own.begin * d;
    float gain = (float)s->gain, *out = s->added + (d + 2) * d;
    const float *constant = w->totals + 2 * d, *all = w->totals + 3 * d, *sparse = w->totals + 4 * d;
    product(0, 1, count, d, d, gain, w->solver + first, d, s->inverse_rows, d, 0.0f, w->inner + first, d);
    product(1, 0, count, d, d, gain * gain, w->half + own.begin, d, w->curvature, d, 0.0f, out + first, d);
    for (Int i = first; i < first + count * d; i++)
        out[i] += gain * (w->outputs[i] + 0.5f * gain * w->square[i]);
    for (Int i = own.begin; s->constant && i < own.end; i++) {
        add_scaled(out + i * d, all, 0.5f * gain * gain * constant[i], d);
        add_scaled(out + i * d, constant, 0.5f * gain * gain * sparse[i], d);
    }
}

/* Rows of the small state, of which `added` holds what they grow by. */
static void settle(const Step *s, Range rows, double *square, double *sum) {
    for (Int r = rows.begin; r < rows.end; r++)
        widehead_settle(s, r * s->d, s->d, s->added + r * s->d, square, sum);
}

/* Twin: Arithmetic.sums: the beginning of `work`, with the products with means behind. */
int widehead_example_sums(int threads, const Step *s) {
    Work work = work_of(s), *w = &work;
#pragma omp parallel num_threads(threads)
    {
        begin_step(s, w);
#pragma omp barrier
        sum_examples(s, w);
    }
    return 0;
}

/* Twin: Arithmetic.step if p is 1 and m > d, from what the function above left in `work`. `figures` as in step.c. Other than
 * 0 if the system is too ill conditioned to be inverted without an exchange of rows. */
int widehead_columns(int threads, const Step *s) {
    Work work = work_of(s), *w = &work;
    Int d = s->d, m = s->m, next = 0;
    int failed = 0;
    double factor = 0.0, inverses = 0.0, known = 0.0, rows = 0.0, growth = 0.0, contraction = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : factor, inverses, known, rows) reduction(max : growth)
    {
        double unused = 0.0;
        /* The others begin with the products meanwhile. */
        if (omp_get_thread_num() == 0) failed = invert_system(s, w, &contraction);
        for (;;) {
            Int begin;
#pragma omp atomic capture
            { begin = next; next += STRIP; }
            if (begin >= d) break;
            times_curvature(s, w, begin, begin + STRIP < d ? STRIP : d - begin);
        }
#pragma omp barrier
        if (!failed) {
            Range own = mine(d, 1), examples = mine(m, 1);
            Int count = own.end - own.begin, gram = d + 2, last = 2 * d + 2;
            finish_gram(s, w, own);
#pragma omp barrier
            product(1, 1, count, d, d, -1.0f, w->inner + own.begin, d, w->curvature, d, 0.0f,
                    s->added + (last + own.begin) * d, d);
            product(0, 0, examples.end - examples.begin, d, d, 1.0f, s->hr + examples.begin * d, d, w->inner, d, 0.0f,
                    s->solved + examples.begin * d, d);
            growth = widehead_growth(s, examples);
            if (omp_get_thread_num() == 0) {
                for (Int j = 0; j < 2 * d; j++) s->added[d * d + j] = (float)s->gain * w->totals[j];
                settle(s, (Range){d, gram}, &unused, &known);
            }
            settle(s, own, &factor, &unused);
            settle(s, (Range){gram + own.begin, gram + own.end}, &unused, &unused);
            settle(s, (Range){last + own.begin, last + own.end}, &inverses, &unused);
#pragma omp barrier
            known += widehead_symmetrised(s, own);
            Terms terms = terms_by_class(s, s->solved);
            rows += widehead_add_sums(&terms, s->n, s->values, s->rows, d);
        }
    }
    s->figures[0] = factor, s->figures[1] = inverses, s->figures[2] = growth;
    s->figures[3] = known, s->figures[4] = rows, s->figures[5] = contraction;
    return failed;
}
