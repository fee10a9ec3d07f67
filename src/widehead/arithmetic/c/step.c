/* The exact step of float32 weights on the CPU, in one parallel region (common.h). */
#include "parts.h"

#define HUGE_CURVATURE 1e18f /* its square enters the step; the twin meets what overflows and names it */

enum {
    STRIP = 32,    /* rows of a task */
    BUFFER = 24576 /* numbers of a buffer */
};

/* A ← A⁻¹ of a symmetric positive definite A (n, n) by halves: products are quicker than the same work row by row; other
 * than 0 if it is not. `work` holds n² / 2 numbers.
 * Twin: spd_inverse. */
static int inverse(Int n, float *a, Int ld, float *work) {
    if (n <= LEAF) return widehead_leaf_inverse(n, a, ld);
    Int h = (n / 2 + LINE - 1) / LINE * LINE, k = n - h;
    float *beside = a + h, *below = a + h * ld, *last = below + h, *across = work, *mixed = work + h * k;
    if (inverse(h, a, ld, work)) return 1;
    product(0, 0, h, k, h, 1.0f, a, ld, beside, ld, 0.0f, across, k);
    product(0, 0, k, k, h, -1.0f, below, ld, across, k, 1.0f, last, ld);
    if (inverse(k, last, ld, mixed)) return 1;
    product(0, 0, h, k, k, 1.0f, across, k, last, ld, 0.0f, mixed, k);
    product(0, 1, h, h, k, 1.0f, mixed, k, across, k, 1.0f, a, ld);
    for (Int i = 0; i < h; i++)
        for (Int j = 0; j < k; j++) below[j * ld + i] = beside[i * ld + j] = -mixed[i * k + j];
    return 0;
}

/* What stands in `work`. */
typedef struct {
    float *kernel, *mixed, *system, *spare, *half, *given, *lefts, *buffers;
    Int lefts_width;
} Work;

static Work work_of(const Step *s) {
    Work w;
    Int mm = s->m * s->m, md = s->m * s->d;
    w.lefts_width = 3 * s->d + 2;
    w.kernel = s->work;
    w.mixed = w.kernel + mm;
    w.system = w.mixed + mm;
    w.spare = w.system + mm;
    w.half = w.spare + mm;
    w.given = w.half + md;
    w.lefts = w.given + md;
    w.buffers = w.lefts + s->m * w.lefts_width;
    return w;
}

/* Numbers that `work` should hold. */
Int widehead_step_work(int threads, Int m, Int d) {
    return 4 * m * m + 2 * m * d + m * (3 * d + 2) + threads * ((Int)BUFFER + LINE * d);
}

/* K = HrHᵀ, G = HrU⁻¹, Sᵀ Hr (in the place of the new rows), and of the left factors those of U, ω and w̄. */
static void begin_step(const Step *s, const Work *w) {
    Int m = s->m, d = s->d, width = 2 * d + 2, left_width = s->constant ? d + 2 : d + 1;
    Range examples = mine(m, 1);
    for (Int b = examples.begin; b < examples.end; b++) {
        const float *other = s->others + b * d, *by = s->by_hidden + b * d, *read = s->products + b * width;
        float *half = w->half + b * d, *left = w->lefts + b * w->lefts_width, factor = s->by_squared_norm[b];
#pragma omp simd
        for (Int j = 0; j < d; j++) half[j] = 0.5f * (other[j] + by[j]);
#pragma omp simd
        for (Int j = 0; j < d + 2; j++) left[j] = factor * read[j];
        left[d + 1] += s->left[b * left_width + d];
        if (s->constant) {
            left[d] += s->constant[b];
            left[d + 1] += (float)(s->num_classes * s->constant[b]);
        }
    }
    Terms terms = terms_by_class(s, s->hr);
    widehead_add_sums(&terms, s->n, NULL, s->rows, d);
    Tile k = tile(m, m), g = tile(m, d);
    product(0, 1, k.rows.end - k.rows.begin, k.columns.end - k.columns.begin, d, 1.0f, s->hr + k.rows.begin * d, d,
            s->hidden + k.columns.begin * d, d, 0.0f, w->kernel + k.rows.begin * m + k.columns.begin, m);
    product(0, 1, g.rows.end - g.rows.begin, g.columns.end - g.columns.begin, d, 1.0f, s->hr + g.rows.begin * d, d,
            s->inverse_rows + g.columns.begin * d, d, 0.0f, w->given + g.rows.begin * d + g.columns.begin, d);
#pragma omp barrier
    product(0, 1, k.rows.end - k.rows.begin, k.columns.end - k.columns.begin, d, 1.0f, s->hidden + k.rows.begin * d, d,
            w->half + k.columns.begin * d, d, 0.0f, w->mixed + k.rows.begin * m + k.columns.begin, m);
}

/* system = (I + gain·√ΛK√Λ)⁻¹; other than 0 if that is not positive definite. `contraction` is the mean of 1/σ − 1 over
 * the directions of the step. Twin: _solve_by_examples. */
static int invert_system(const Step *s, const Work *w, double *contraction) {
    Int m = s->m;
    float gain = (float)s->gain;
    for (Int b = 0; b < m; b++) {
        float scale = gain * sqrtf(s->by_squared_norm[b]), *row = w->system + b * m;
        const float *kernel = w->kernel + b * m;
        for (Int c = 0; c < m; c++) row[c] = scale * sqrtf(s->by_squared_norm[c]) * kernel[c];
        row[b] += 1.0f;
    }
    if (inverse(m, w->system, m, w->spare)) return 1;
    double trace = 0.0;
    for (Int b = 0; b < m; b++) trace += w->system[b * m + b];
    *contraction = (trace - m) / (m < s->d ? m : s->d);
    return 0;
}

/* Rows of Z, by which Q grows: Z = TW + ½ gain·TTᵀHr, up to what is lost in HrᵀZ + ZᵀHr. Of TTᵀ =
 * YHᵀΛ + ΛHYᵀ + NNᵀ (gradient.py) one of each pair that is the other's transpose, twice, does as well. */
static void gram_rows(const Step *s, const Work *w, Range examples, const float *shared) {
    Int m = s->m, d = s->d, width = w->lefts_width;
    float gain = (float)s->gain, *out = w->lefts + examples.begin * width + d + 2;
    product(0, 0, examples.end - examples.begin, d, m, 1.0f, w->mixed + examples.begin * m, m, s->hr, d, 0.0f, out,
            width);
    for (Int b = examples.begin; b < examples.end; b++) {
        float *row = w->lefts + b * width + d + 2, factor = gain * s->by_squared_norm[b];
        const float *by = s->by_hidden + b * d;
#pragma omp simd
        for (Int j = 0; j < d; j++) row[j] = by[j] + factor * row[j];
        for (Int k = s->offsets[b]; k < s->offsets[b + 1]; k++)
            add_scaled(row, s->rows + s->positions[k] * d, 0.5f * gain * s->sparse[k], d);
        if (s->constant) add_scaled(row, shared, gain * s->constant[b], d);
    }
}

/* out (d,) = (½Dσ + S1)ᵀHr. */
static void shared_part(const Step *s, float *out) {
    memset(out, 0, sizeof(float) * s->d);
    for (Int b = 0; b < s->m; b++) {
        float factor = (float)(0.5 * s->num_classes * s->constant[b]) + s->left[b * (s->d + 2) + s->d];
        add_scaled(out, s->hr + b * s->d, factor, s->d);
    }
}

/* C = gain·(I + gain·KΛ)⁻¹G from the inverse of the symmetric system, and ΛC in the left factor of U⁻ᵀ. */
static void solve_rows(const Step *s, const Work *w, int alike) {
    Int m = s->m, d = s->d;
    const float *solver = w->system;
    if (!alike) { /* I − gain·K√Λ(…)⁻¹√Λ, which needs no division by λ */
        Range examples = mine(m, 1);
        for (Int b = examples.begin; b < examples.end; b++) {
            float *row = w->system + b * m, root = sqrtf(s->by_squared_norm[b]);
            for (Int c = 0; c < m; c++) row[c] *= root * sqrtf(s->by_squared_norm[c]);
        }
#pragma omp barrier
        Tile own = tile(m, m);
        product(0, 0, own.rows.end - own.rows.begin, own.columns.end - own.columns.begin, m, (float)-s->gain,
                w->kernel + own.rows.begin * m, m, w->system + own.columns.begin, m, 0.0f,
                w->spare + own.rows.begin * m + own.columns.begin, m);
        for (Int b = own.rows.begin; b < own.rows.end; b++)
            if (b >= own.columns.begin && b < own.columns.end) w->spare[b * m + b] += 1.0f;
#pragma omp barrier
        solver = w->spare;
    }
    Tile own = tile(m, d);
    Int first = own.columns.begin, count = own.columns.end - first;
    product(0, 0, own.rows.end - own.rows.begin, count, m, (float)s->gain, solver + own.rows.begin * m, m,
            w->given + first, d, 0.0f, s->solved + own.rows.begin * d + first, d);
    for (Int b = own.rows.begin; b < own.rows.end; b++) {
        float *left = w->lefts + b * w->lefts_width + 2 * d + 2 + first, factor = s->by_squared_norm[b];
        const float *row = s->solved + b * d + first;
        for (Int j = 0; j < count; j++) left[j] = factor * row[j];
    }
}

/* added ← added + alpha·leftᵀ·X and value ← base + added for rows of the small state; gives Σ value² and Σ value. */
static void grow(const Step *s, const Work *w, Range rows, float alpha, const float *factor, double *square,
                 double *sum) {
    Int d = s->d, at_once = BUFFER / d > LINE ? BUFFER / d / LINE * LINE : LINE;
    float *buffer = w->buffers + omp_get_thread_num() * ((Int)BUFFER + LINE * d);
    for (Int r = rows.begin; r < rows.end; r += at_once) {
        Int count = rows.end - r < at_once ? rows.end - r : at_once;
        product(1, 0, count, d, s->m, alpha, w->lefts + r, w->lefts_width, factor, d, 0.0f, buffer, d);
        widehead_settle(s, r * d, count * d, buffer, square, sum);
    }
}

/* Twin: Arithmetic.step if p is 1, m ≤ d and Λ ≥ 0. `figures` are ‖U‖²_F, ‖U⁻¹‖²_F, the most growth of a row, Σ of ω,
 * w̄ and Q, Σ of the new rows, and the contraction. Other than 0 if Λ has an entry that is negative or huge, or the system
 * is not positive definite. */
int widehead_step(int threads, const Step *s) {
    Work work = work_of(s), *w = &work;
    Int d = s->d, next = 0;
    int failed = 0, alike = 1;
    double factor = 0.0, inverses = 0.0, known = 0.0, rows = 0.0, growth = 0.0, contraction = 0.0;
    for (Int b = 0; b < s->m; b++) {
        alike &= s->by_squared_norm[b] == s->by_squared_norm[0];
        if (!(s->by_squared_norm[b] >= 0.0f && s->by_squared_norm[b] < HUGE_CURVATURE)) return 1; /* NaN too */
    }
#pragma omp parallel num_threads(threads) reduction(+ : factor, inverses, known, rows) reduction(max : growth)
    {
        float *buffer = w->buffers + omp_get_thread_num() * ((Int)BUFFER + LINE * d);
        begin_step(s, w);
#pragma omp barrier
        /* The others begin with the rows meanwhile. */
        if (omp_get_thread_num() == 0) failed = invert_system(s, w, &contraction);
        if (s->constant) shared_part(s, buffer);
        for (;;) {
            Int begin;
#pragma omp atomic capture
            { begin = next; next += STRIP; }
            if (begin >= s->m) break;
            gram_rows(s, w, (Range){begin, begin + STRIP < s->m ? begin + STRIP : s->m}, buffer);
        }
#pragma omp barrier
        if (!failed) {
            double unused = 0.0;
            solve_rows(s, w, alike);
#pragma omp barrier
            Terms terms = terms_by_class(s, s->solved);
            rows += widehead_add_sums(&terms, s->n, s->values, s->rows, d);
            growth = widehead_growth(s, mine(s->m, 1));
            Range own = mine(d, 1);
            Range first = {own.begin, own.end}, middle = {own.begin + d + 2, own.end + d + 2};
            Range last = {own.begin + 2 * d + 2, own.end + 2 * d + 2};
            grow(s, w, first, (float)s->gain, s->hr, &factor, &unused);
            if (own.end == d && own.begin < d) grow(s, w, (Range){d, d + 2}, (float)s->gain, s->hr, &unused, &known);
            grow(s, w, middle, (float)s->gain, s->hr, &unused, &unused);
            grow(s, w, last, -1.0f, s->hidden, &inverses, &unused);
#pragma omp barrier
            known += widehead_symmetrised(s, own);
        }
    }
    s->figures[0] = factor, s->figures[1] = inverses, s->figures[2] = growth;
    s->figures[3] = known, s->figures[4] = rows, s->figures[5] = contraction;
    return failed;
}
