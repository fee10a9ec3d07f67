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

/* What stands in `work`. `given` is C itself if nothing is inverted. */
typedef struct {
    float *kernel, *mixed, *system, *spare, *half, *named, *given, *lefts, *gram, *buffers;
    Int lefts_width;
    double kappa; /* φ of W: 0 if W is back from the momentum alone */
} Work;

static Work work_of(const Step *s) {
    Work w;
    Int mm = s->m * s->m, md = s->m * s->d;
    w.kappa = rule_of(s).phi[0];
    w.lefts_width = 3 * s->c + 2;
    w.kernel = s->work;
    w.mixed = w.kernel + mm;
    w.system = w.mixed + mm;
    w.spare = w.system + mm;
    w.half = w.spare + mm;
    w.named = w.half + md;
    w.given = w.kappa == 0.0 ? s->solved : w.named + md;
    w.lefts = w.named + md + s->m * s->c;
    w.gram = w.lefts + s->m * w.lefts_width;
    w.buffers = w.gram + s->c * s->d;
    return w;
}

/* Numbers that `work` should hold. */
Int widehead_step_work(int threads, Int m, Int d, Int c) {
    return 4 * m * m + m * (2 * d + c) + m * (3 * c + 2) + c * d + threads * ((Int)BUFFER + LINE * d);
}

/* K = HrHᵀ, G = Hr(φ⊗I)U⁻¹, SSᵀHr, and of the left factors those of U, ω and w̄, with NM in
 * the place of the last block of Z. */
static void begin_step(const Step *s, const Work *w) {
    Int m = s->m, d = s->d, c = s->c, width = 2 * c + 2, left_width = s->constant ? c + 2 : c + 1;
    Rule p = rule_of(s);
    Range examples = mine(m, 1);
    for (Int b = examples.begin; b < examples.end; b++) {
        const float *other = s->others + b * d, *by = s->by_hidden + b * d, *read = s->products + b * width;
        float *half = w->half + b * d, *left = w->lefts + b * w->lefts_width, factor = s->by_squared_norm[b];
#pragma omp simd
        for (Int j = 0; j < d; j++) half[j] = 0.5f * (other[j] + by[j]);
#pragma omp simd
        for (Int j = 0; j < c + 2; j++) left[j] = factor * read[j];
        left[c + 1] += s->left[b * left_width + c];
        if (s->constant) {
            left[c] += s->constant[b];
            left[c + 1] += (float)(s->num_classes * s->constant[b]);
        }
    }
    Terms terms = terms_by_class(s, s->hr, d);
    widehead_gram_columns(&terms, mine(d, LINE), m, s->n, w->named);
    Tile k = tile(m, m), g = tile(m, c), n = tile(m, d);
    if (p.k > 1)
        product(0, 0, n.rows.end - n.rows.begin, n.columns.end - n.columns.begin, left_width, 1.0f,
                s->left + n.rows.begin * left_width, left_width,
                s->inverse_rows - (2 * c + 2) * c + d + n.columns.begin, c, 0.0f,
                w->lefts + n.rows.begin * w->lefts_width + c + 2 + d + n.columns.begin, w->lefts_width);
    Int down = k.rows.end - k.rows.begin, across = k.columns.end - k.columns.begin;
    if (w->kappa != 0.0)
        product(0, 1, down, across, d, 1.0f, s->hr + k.rows.begin * d, d, s->hidden + k.columns.begin * d, d, 0.0f,
                w->kernel + k.rows.begin * m + k.columns.begin, m);
    float kept = 0.0f;
    for (Int b = 0; b < p.k; b++) {
        if (p.phi[b] == 0.0 && b < p.k - 1) continue;
        product(0, 1, g.rows.end - g.rows.begin, g.columns.end - g.columns.begin, d, (float)p.phi[b],
                s->hr + g.rows.begin * d, d, s->inverse_rows + g.columns.begin * c + b * d, c, kept,
                w->given + g.rows.begin * c + g.columns.begin, c);
        kept = 1.0f;
    }
#pragma omp barrier
    product(0, 1, down, across, d, 1.0f, s->hidden + k.rows.begin * d, d, w->half + k.columns.begin * d, d, 0.0f,
            w->mixed + k.rows.begin * m + k.columns.begin, m);
}

/* system = (I + κ·√ΛK√Λ)⁻¹; other than 0 if that is not positive definite. `contraction` is the mean of 1/σ − 1 over
 * the directions of the step. Twin: _solve_by_examples. */
static int invert_system(const Step *s, const Work *w, double *contraction) {
    Int m = s->m;
    for (Int b = 0; b < m; b++) {
        float scale = (float)w->kappa * sqrtf(s->by_squared_norm[b]), *row = w->system + b * m;
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

/* Rows of Z, by which Q grows: Z = TX(p⊗I) + ½ TTᵀHr(f⊗I), up to what is lost in (Hr f̂)ᵀZ + Zᵀ(Hr f̂). Of TTᵀ =
 * YHᵀΛ + ΛHYᵀ + NNᵀ (gradient.py) one of each pair that is the other's transpose, twice, does as well. */
static void gram_rows(const Step *s, const Work *w, Range examples, const float *shared) {
    Int m = s->m, d = s->d, c = s->c, width = w->lefts_width;
    Rule p = rule_of(s);
    float *out = w->lefts + examples.begin * width + c + 2;
    product(0, 0, examples.end - examples.begin, d, m, 1.0f, w->mixed + examples.begin * m, m, s->hr, d, 0.0f, out, width);
    for (Int b = examples.begin; b < examples.end; b++) {
        float *row = w->lefts + b * width + c + 2, factor = s->by_squared_norm[b];
        const float *by = s->by_hidden + b * d, *read = s->products + b * (2 * c + 2) + c + 2 + d;
#pragma omp simd
        for (Int j = 0; j < d; j++) row[j] = factor * row[j];
        add_scaled(row, w->named + b * d, 0.5f, d);
        if (s->constant) add_scaled(row, shared, s->constant[b], d);
        if (p.k == 1) {
            float kept = (float)p.mix[0], gain = (float)p.gain[0];
#pragma omp simd
            for (Int j = 0; j < d; j++) row[j] = kept * by[j] + gain * row[j];
            continue;
        }
        float kept = (float)p.mix[0], lent = (float)p.mix[1], drift = (float)p.mix[2], mu = (float)p.mix[3];
        float first = (float)p.gain[0], second = (float)p.gain[1];
#pragma omp simd
        for (Int j = 0; j < d; j++) {
            float half = row[j], momentum = row[d + j] + factor * read[j];
            row[j] = kept * by[j] + drift * momentum + first * half;
            row[d + j] = lent * by[j] + mu * momentum + second * half;
        }
    }
}

/* out (d,) = (½Dσ + S1)ᵀHr. */
static void shared_part(const Step *s, float *out) {
    memset(out, 0, sizeof(float) * s->d);
    for (Int b = 0; b < s->m; b++) {
        float factor = (float)(0.5 * s->num_classes * s->constant[b]) + s->left[b * (s->c + 2) + s->c];
        add_scaled(out, s->hr + b * s->d, factor, s->d);
    }
}

/* C = (I + κKΛ)⁻¹G from the inverse of the symmetric system. */
static void solve_rows(const Step *s, const Work *w, int alike) {
    Int m = s->m, c = s->c;
    const float *solver = w->system;
    if (!alike) { /* I − κK√Λ(…)⁻¹√Λ, which needs no division by λ */
        Range examples = mine(m, 1);
        for (Int b = examples.begin; b < examples.end; b++) {
            float *row = w->system + b * m, root = sqrtf(s->by_squared_norm[b]);
            for (Int e = 0; e < m; e++) row[e] *= root * sqrtf(s->by_squared_norm[e]);
        }
#pragma omp barrier
        Tile own = tile(m, m);
        product(0, 0, own.rows.end - own.rows.begin, own.columns.end - own.columns.begin, m, (float)-w->kappa,
                w->kernel + own.rows.begin * m, m, w->system + own.columns.begin, m, 0.0f,
                w->spare + own.rows.begin * m + own.columns.begin, m);
        for (Int b = own.rows.begin; b < own.rows.end; b++)
            if (b >= own.columns.begin && b < own.columns.end) w->spare[b * m + b] += 1.0f;
#pragma omp barrier
        solver = w->spare;
    }
    Tile own = tile(m, c);
    product(0, 0, own.rows.end - own.rows.begin, own.columns.end - own.columns.begin, m, 1.0f,
            solver + own.rows.begin * m, m, w->given + own.columns.begin, c, 0.0f,
            s->solved + own.rows.begin * c + own.columns.begin, c);
}

/* ΛC, the left factor of U⁻ᵀ, in the part of C that this thread made. */
static void weigh_rows(const Step *s, const Work *w) {
    Tile own = tile(s->m, s->c);
    for (Int b = own.rows.begin; b < own.rows.end; b++) {
        float *left = w->lefts + b * w->lefts_width + 2 * s->c + 2, factor = s->by_squared_norm[b];
        for (Int j = own.columns.begin; j < own.columns.end; j++) left[j] = factor * s->solved[b * s->c + j];
    }
}

/* Rows of the small state, which grow by leftᵀ·X with X = Hr, or H for U⁻ᵀ. */
static void grow(const Step *s, const Work *w, Range rows, const float *factor, Found *found) {
    Int d = s->d, at_once = BUFFER / d > LINE ? BUFFER / d / LINE * LINE : LINE, gram = s->c + 2;
    int is_kept = s->master && rows.begin >= gram && rows.end <= gram + s->c; /* for widehead_grow_gram */
    float *buffer = w->buffers + omp_get_thread_num() * ((Int)BUFFER + LINE * d);
    for (Int r = rows.begin; r < rows.end; r += at_once) {
        Int count = rows.end - r < at_once ? rows.end - r : at_once;
        float *grown = is_kept ? w->gram + (r - gram) * d : buffer;
        product(1, 0, count, d, s->m, 1.0f, w->lefts + r, w->lefts_width, factor, d, 0.0f, grown, d);
        if (!is_kept) widehead_grow(s, r, count, grown, found);
    }
}

/* Twin: Arithmetic.step if m ≤ d and Λ ≥ 0. `figures` are ‖U‖²_F and ‖U⁻¹‖²_F by blocks, the most growth of a row by
 * blocks, Σ of ω, w̄ and Q, Σ of the new rows, and the contraction. Other than 0 if Λ has an entry that is negative or
 * huge, or the system is not positive definite. */
int widehead_step(int threads, const Step *s) {
    Work work = work_of(s), *w = &work;
    Int d = s->d, c = s->c, next = 0;
    int failed = 0, alike = 1;
    double contraction = 0.0;
    Found all = {{0.0}};
    for (Int b = 0; b < s->m; b++) {
        alike &= s->by_squared_norm[b] == s->by_squared_norm[0];
        if (!(s->by_squared_norm[b] >= 0.0f && s->by_squared_norm[b] < HUGE_CURVATURE)) return 1; /* NaN too */
    }
#pragma omp parallel num_threads(threads)
    {
        float *buffer = w->buffers + omp_get_thread_num() * ((Int)BUFFER + LINE * d);
        Found found = {{0.0}};
        begin_step(s, w);
#pragma omp barrier
        /* The others begin with the rows meanwhile. */
        if (omp_get_thread_num() == 0 && w->kappa != 0.0) failed = invert_system(s, w, &contraction);
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
            Range own = mine(c, 1);
            if (w->kappa != 0.0) solve_rows(s, w, alike);
            weigh_rows(s, w);
#pragma omp barrier
            Terms terms = terms_by_class(s, s->solved, c);
            if (s->rows) found.rows += widehead_add_sums(&terms, s->n, s->values, s->rows, c);
            widehead_growth(s, mine(s->m, 1), &found);
            grow(s, w, own, s->hr, &found);
            if (own.end == c && own.begin < c) grow(s, w, (Range){c, c + 2}, s->hr, &found);
            grow(s, w, (Range){own.begin + c + 2, own.end + c + 2}, s->hr, &found);
            grow(s, w, (Range){own.begin + 2 * c + 2, own.end + 2 * c + 2}, s->hidden, &found);
#pragma omp barrier
            widehead_grow_gram(s, mine(d, 1), w->gram, &found);
            widehead_join(&all, &found);
        }
    }
    widehead_tell(s, &all, contraction);
    return failed;
}
