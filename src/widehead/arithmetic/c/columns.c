/* The exact step of float32 weights on the CPU if there are more examples than columns: sums over the examples first, which
 * may be added up over processes, then products of d × d numbers; each in one parallel region (common.h). Letters:
 * B = HᵀΛHr, N = σ1ᵀ + S. */
#include "parts.h"

enum { STRIP = 64, MEANS = 5 }; /* rows of a task; vectors that Hr is multiplied with */

/* What stands in `work`: B (d, d), (NX)ᵀHr (c, d) and the square of SᵀHr (d, d), then what follows from them, then numbers
 * of examples; φ of W. `inner` has rows of (φ⊗I)U⁻¹S, transposed: (c, d) numbers in rows of inner_width, times `scale`. */
typedef struct {
    float *curvature, *others, *square, *half, *solver, *spare, *outputs, *grown, *made, *totals, *scaled, *named, *means;
    const float *inner;
    Int inner_width;
    float scale;
    double kappa;
} Work;

static Work work_of(const Step *s) {
    Int md = s->m * s->d, dd = s->d * s->d, cd = s->c * s->d;
    Rule p = rule_of(s);
    int is_known = p.k > 1 && p.phi[0] == 0.0; /* W is back from the momentum alone: S is I */
    Work w;
    w.curvature = s->work;
    w.others = w.curvature + dd;
    w.square = w.others + cd;
    w.half = w.square + dd;
    w.solver = w.half + dd;
    w.spare = w.solver + dd;
    w.outputs = w.spare + dd;
    w.grown = w.outputs + cd;
    w.made = w.grown + cd;
    w.totals = w.made + cd;
    w.scaled = w.totals + MEANS * s->d;
    w.named = w.scaled + md;
    w.means = w.named + md;
    w.inner = is_known ? s->inverse_rows + s->d : w.made;
    w.inner_width = is_known ? s->c : s->d;
    w.scale = is_known ? (float)p.phi[1] : 1.0f;
    w.kappa = p.phi[0];
    return w;
}

/* Numbers that `work` should hold. */
Int widehead_columns_work(Int m, Int d, Int c) { return 2 * m * d + MEANS * (m + d) + 5 * d * d + 4 * c * d; }

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

/* S = (I + κB)⁻¹, with the mean of 1/σ − 1 over its directions; other than 0 if it is not good to float32's digits,
 * which one product with a vector shows. */
static int invert_system(const Step *s, const Work *w, double *contraction) {
    Int d = s->d;
    float kappa = (float)w->kappa, *sums = w->spare;
    for (Int i = 0; i < d * d; i++) w->solver[i] = kappa * w->curvature[i];
    for (Int i = 0; i < d; i++) w->solver[i * d + i] += 1.0f;
    if (inverse(d, w->solver, d, w->spare)) return 1;
    double trace = 0.0, size = 0.0, missing = 0.0;
    for (Int i = 0; i < d; i++) sums[i] = total(w->solver + i * d, d); /* S·1 */
    for (Int i = 0; i < d; i++) {
        double left = sums[i] + kappa * dot(w->curvature + i * d, sums, d) - 1.0;
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
    Int m = s->m, d = s->d, c = s->c, width = 2 * c + 2, left_width = s->constant ? c + 2 : c + 1;
    Range examples = mine(m, 1);
    for (Int b = examples.begin; b < examples.end; b++) {
        const float *row = s->hr + b * d, *read = s->products + b * width + c;
        float *scaled = w->scaled + b * d, *means = w->means + b * MEANS, factor = s->by_squared_norm[b];
        float sums = s->left[b * left_width + c], constant = s->constant ? s->constant[b] : 0.0f;
#pragma omp simd
        for (Int j = 0; j < d; j++) scaled[j] = factor * row[j];
        means[2] = constant, means[4] = sums, means[3] = sums + (float)(s->num_classes * constant);
        means[0] = factor * read[0] + constant;
        means[1] = factor * read[1] + means[3];
    }
    Terms terms = terms_by_class(s, s->hr, d);
    widehead_gram_columns(&terms, mine(d, LINE), m, s->n, w->named);
}

/* B and (NX)ᵀHr of the step's own examples, the square of SᵀHr and the products with means of all, a part of their rows or
 * columns for each thread. Of what is symmetric, and meets its transpose, the upper half is made twice as large and the
 * lower is left out. */
static void sum_examples(const Step *s, const Work *w) {
    Int m = s->m, d = s->d, some = s->end - s->first, first = s->first * d;
    Range own = mine(d, LINE);
    Int count = own.end - own.begin, rest = d - own.end;
    product(1, 0, count, d, some, 1.0f, s->hidden + first + own.begin, d, w->scaled + first, d, 0.0f,
            w->curvature + own.begin * d, d);
    for (Int begin = own.begin; begin < s->c; begin += d)
        product(1, 0, count, d, some, 1.0f, s->others + begin, s->c, s->hr + first, d, 0.0f, w->others + begin * d, d);
    product(1, 0, MEANS, count, m, 1.0f, w->means, MEANS, s->hr + own.begin, d, 0.0f, w->totals + own.begin, d);
    for (Int i = own.begin; i < own.end; i++) memset(w->square + i * d, 0, sizeof(float) * own.begin);
    product(1, 0, count, count, m, 1.0f, w->named + own.begin, d, s->hr + own.begin, d, 0.0f,
            w->square + own.begin * d + own.begin, d);
    product(1, 0, count, rest, m, 2.0f, w->named + own.begin, d, s->hr + own.end, d, 0.0f,
            w->square + own.begin * d + own.end, d);
}

/* New rows of U, which grow by UB, and rows of (TX)ᵀHr = (NX)ᵀHr + QB, with half of what that and (NW)ᵀHr are. */
static void times_curvature(const Step *s, const Work *w, Int begin, Int count, Found *found) {
    Int d = s->d, c = s->c, first = begin * d;
    const float *small = s->inverse_rows - (2 * c + 2) * c;
    product(0, 0, count, d, d, 1.0f, small + begin * c, c, w->curvature, d, 0.0f, w->grown + first, d);
    widehead_grow(s, begin, count, w->grown + first, found);
    memcpy(w->outputs + first, w->others + first, sizeof(float) * count * d);
    product(0, 0, count, d, d, 1.0f, small + (c + 2 + begin) * c, c, w->curvature, d, 1.0f, w->outputs + first, d);
    for (Int i = first; i < first + count * d && i < d * d; i++) w->half[i] = 0.5f * (w->others[i] + w->outputs[i]);
}

/* Rows of what Q grows by in each block, up to what is lost in A + Aᵀ: of (p⊗I)ᵀ(TX)ᵀHr + ½ f̂ᵀHrᵀTTᵀHr, in the place of
 * (NX)ᵀHr. */
static void finish_gram(const Step *s, const Work *w, Range own) {
    Int d = s->d, first = own.begin * d;
    Rule p = rule_of(s);
    float *out = w->others;
    const float *constant = w->totals + 2 * d, *all = w->totals + 3 * d, *sparse = w->totals + 4 * d;
    product(1, 0, own.end - own.begin, d, d, 1.0f, w->half + own.begin, d, w->curvature, d, 0.0f, out + first, d);
    for (Int i = own.begin; i < own.end; i++) {
        float *row = out + i * d;
        add_scaled(row, w->square + i * d, 0.5f, d);
        if (s->constant) add_scaled(row, all, 0.5f * constant[i], d);
        if (s->constant) add_scaled(row, constant, 0.5f * sparse[i], d);
        for (Int a = p.k - 1; a >= 0; a--) {
            float *block = row + a * d * d, gain = (float)p.gain[a], kept = (float)p.mix[a];
            const float *read = w->outputs + i * d, *last = read + (p.k - 1) * d * d;
            float from_last = p.k > 1 ? (float)p.mix[p.k + a] : 0.0f;
#pragma omp simd
            for (Int j = 0; j < d; j++) block[j] = gain * row[j] + kept * read[j] + from_last * last[j];
        }
    }
}

/* Rows of ((φ⊗I)U⁻¹)ᵀSᵀ. */
static void solve_inner(const Step *s, const Work *w, Range own) {
    Int d = s->d, c = s->c;
    Rule p = rule_of(s);
    for (Int b = 0; b < p.k; b++)
        product(0, 1, own.end - own.begin, d, d, (float)p.phi[b], s->inverse_rows + own.begin * c + b * d, c, w->solver,
                d, b > 0 ? 1.0f : 0.0f, w->made + own.begin * d, d);
}

/* New rows of U⁻ᵀ, which loses ((φ⊗I)U⁻¹S)ᵀBᵀ. */
static void lose_curvature(const Step *s, const Work *w, Range own, Found *found) {
    Int d = s->d, count = own.end - own.begin;
    float *lost = w->grown + own.begin * d;
    product(0, 1, count, d, d, w->scale, w->inner + own.begin * w->inner_width, w->inner_width, w->curvature, d, 0.0f,
            lost, d);
    widehead_grow(s, 2 * s->c + 2 + own.begin, count, lost, found);
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

/* Twin: Arithmetic.step if m > d, from what the function above left in `work`. `figures` as in step.c. Other than 0 if the
 * system is too ill conditioned to be inverted without an exchange of rows. */
int widehead_columns(int threads, const Step *s) {
    Work work = work_of(s), *w = &work;
    Int d = s->d, c = s->c, m = s->m, next = 0;
    int failed = 0, inverts = w->inner == w->made;
    double contraction = 0.0;
    Found all = {{0.0}};
#pragma omp parallel num_threads(threads)
    {
        Found found = {{0.0}};
        /* The others begin with the products meanwhile. */
        if (omp_get_thread_num() == 0 && inverts) failed = invert_system(s, w, &contraction);
        for (;;) {
            Int begin;
#pragma omp atomic capture
            { begin = next; next += STRIP; }
            if (begin >= c) break;
            times_curvature(s, w, begin, begin + STRIP < c ? STRIP : c - begin, &found);
        }
#pragma omp barrier
        if (!failed) {
            Range own = mine(c, 1), columns = mine(d, 1), examples = mine(m, 1);
            finish_gram(s, w, columns);
            if (inverts) solve_inner(s, w, own);
#pragma omp barrier
            lose_curvature(s, w, own, &found);
            product(0, 1, examples.end - examples.begin, c, d, w->scale, s->hr + examples.begin * d, d, w->inner,
                    w->inner_width, 0.0f, s->solved + examples.begin * c, c);
            widehead_growth(s, examples, &found);
            if (omp_get_thread_num() == 0) widehead_grow(s, c, 2, w->totals, &found);
            if (!s->master)
                widehead_grow(s, c + 2 + columns.begin, columns.end - columns.begin, w->others + columns.begin * d, &found);
#pragma omp barrier
            widehead_grow_gram(s, columns, w->others, &found);
            Terms terms = terms_by_class(s, s->solved, c);
            if (s->rows) found.rows += widehead_add_sums(&terms, s->n, s->values, s->rows, c);
            widehead_join(&all, &found);
        }
    }
    widehead_tell(s, &all, contraction);
    return failed;
}
