/* A step made well conditioned again, by taking the direction in which U is smallest out of it (common.h).
 * Twin: correct in arithmetic/correct.py, which has the formulas; rows and figures as in step.c. */
#include "common.h"

/* out (rows,) = A·v for A (rows, d). */
static void times(const double *a, Int rows, Int d, const double *v, double *out) {
#pragma omp for
    for (Int i = 0; i < rows; i++) {
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (Int j = 0; j < d; j++) sum += a[i * d + j] * v[j];
        out[i] = sum;
    }
}

/* out (d,) = Aᵀ·v for A (rows, d); each thread has some columns. */
static void transposed_times(const double *a, Int rows, Int d, const double *v, double *out) {
    Range own = mine(d, LINE / 2);
    for (Int j = own.begin; j < own.end; j++) out[j] = 0.0;
    for (Int i = 0; i < rows; i++)
#pragma omp simd
        for (Int j = own.begin; j < own.end; j++) out[j] += a[i * d + j] * v[i];
#pragma omp barrier
}

static double length(const double *v, Int d) {
    double sum = 0.0;
    for (Int j = 0; j < d; j++) sum += v[j] * v[j];
    return sqrt(sum);
}

static double inner(const double *a, const double *b, Int d) {
    double sum = 0.0;
    for (Int j = 0; j < d; j++) sum += a[j] * b[j];
    return sum;
}

/* out = v / ‖v‖, by one thread for all. */
static void unit(const double *v, Int d, double *out) {
#pragma omp single
    {
        double size = length(v, d);
        for (Int j = 0; j < d; j++) out[j] = v[j] / size;
    }
}

/* The sums with what was added. Twin: SmallState.flushed. */
static void flush(const Correction *s) {
    Int d = s->d;
#pragma omp for
    for (Int i = 0; i < 3 * d + 2; i++) {
        double *out = s->new_master + i * d;
        const double *old = s->master + i * d;
        const float *added = s->small_added + i * d, *gram = s->small_added + (d + 2) * d;
        for (Int j = 0; j < d; j++) out[j] = old[j] + added[j];
        if (i >= d + 2 && i < 2 * d + 2)
            for (Int j = 0; j < d; j++) out[j] += gram[j * d + i - d - 2];
    }
}

/* Vectors of d numbers that `work` holds. */
enum { START, TURNED, X, COLUMN, Y, KEPT, READ, TAKEN, OUTGOING, FIRST, RESIDUAL, MORE, VECTORS };

Int widehead_correct_work(Int d) { return VECTORS * d; }

/* bᵀ = vᵀU⁻¹, and what is missing in it once more. Twin: _row_factor. */
static void find_b(const Correction *s, double *const *v) {
    Int d = s->d;
    const double *factor = s->new_master, *inverse = factor + (2 * d + 2) * d;
    times(inverse, d, d, v[OUTGOING], v[FIRST]);
    transposed_times(factor, d, d, v[FIRST], v[RESIDUAL]);
#pragma omp single
    for (Int j = 0; j < d; j++) v[RESIDUAL][j] = v[OUTGOING][j] - v[RESIDUAL][j];
    times(inverse, d, d, v[RESIDUAL], v[MORE]);
#pragma omp single
    for (Int j = 0; j < d; j++) {
        s->b[j] = (float)(v[FIRST][j] + v[MORE][j]);
        s->x[j] = (float)v[X][j];
    }
}

/* x, nearly U's left singular vector of the smallest singular value, from the largest row of C. Twin: _smallest. */
static void find_smallest(const Correction *s, double *const *v) {
    Int d = s->d;
    const double *inverse = s->new_master + (2 * d + 2) * d; /* U⁻ᵀ */
#pragma omp single
    {
        Int largest = 0;
        float most = -1.0f;
        for (Int b = 0; b < s->m; b++) {
            float size = dot(s->solved + b * d, s->solved + b * d, d);
            if (size > most) most = size, largest = b;
        }
        for (Int j = 0; j < d; j++) v[START][j] = s->solved[largest * d + j];
    }
    transposed_times(inverse, d, d, v[START], v[COLUMN]);
    unit(v[COLUMN], d, v[TURNED]);
    times(inverse, d, d, v[TURNED], v[READ]);
    unit(v[READ], d, v[X]);
    transposed_times(inverse, d, d, v[X], v[COLUMN]); /* U⁻¹x */
}

/* The changes of U and U⁻¹ by one direction, and the vector b that V is corrected with. */
static void exchange_direction(const Correction *s, double *const *v, double size) {
    Int d = s->d;
    double *factor = s->new_master, *inverse = factor + (2 * d + 2) * d;
    unit(v[COLUMN], d, v[Y]);
    transposed_times(factor, d, d, v[X], v[KEPT]);
    times(inverse, d, d, v[Y], v[READ]);
#pragma omp single
    {
        double along = inner(v[READ], v[X], d) + 1.0 / size;
        for (Int j = 0; j < d; j++) {
            v[TAKEN][j] = v[READ][j] - along * v[X][j];
            v[OUTGOING][j] = v[KEPT][j] - size * v[Y][j];
        }
    }
#pragma omp for
    for (Int i = 0; i < d; i++)
        for (Int j = 0; j < d; j++) {
            factor[i * d + j] -= v[X][i] * v[OUTGOING][j];
            inverse[i * d + j] -= v[X][i] * v[COLUMN][j] + v[TAKEN][i] * v[Y][j];
        }
}

/* C, V and the target rows for the new U; gives what the growth and the sum of the rows are, as in step.c. */
static void change_rows(const Correction *s, double *const *v, double *growth, double *sum) {
    Int d = s->d;
    Range examples = mine(s->m, 1), classes = mine(s->n, 1);
    for (Int b = examples.begin; b < examples.end; b++) {
        const float *old = s->solved + b * d, *given = s->hr + b * d;
        float *out = s->new_solved + b * d;
        double along = 0.0, turned = 0.0;
        for (Int j = 0; j < d; j++) along += old[j] * v[X][j], turned += given[j] * v[Y][j];
        turned *= s->gain;
        for (Int j = 0; j < d; j++) out[j] = (float)(old[j] - along * v[X][j] - turned * v[TAKEN][j]);
        float size = sqrtf(dot(given, given, d));
        float now = sqrtf(dot(out, out, d)) / (size > 1.2e-38f ? size : 1.2e-38f);
        if (now > *growth) *growth = now;
    }
#pragma omp barrier
    for (Int i = classes.begin; i < classes.end; i++) {
        float *moved = s->new_values + i * d, *row = s->rows + i * d;
        memcpy(moved, s->values + i * d, sizeof(float) * d);
        add_scaled(moved, s->b, dot(moved, s->x, d), d);
        memcpy(row, moved, sizeof(float) * d);
        for (Int k = s->class_offsets[i]; k < s->class_offsets[i + 1]; k++)
            add_scaled(row, s->new_solved + s->examples_by_class[k] * d, s->sparse[s->by_class[k]], d);
        *sum += total(row, d);
    }
}

/* base ← the sums, rounded; gives Σ of squares of rows [begin, end) and their sum. */
static void round_rows(const Correction *s, Int begin, Int end, double *square, double *sum) {
    Int d = s->d;
    Range own = mine(end - begin, 1);
    for (Int i = (begin + own.begin) * d; i < (begin + own.end) * d; i++) {
        float now = (float)s->new_master[i];
        s->base[i] = now;
        *square += (double)now * now;
        *sum += now;
    }
}

/* Gives other than 0 if the direction is too small to be taken out, or not finite. `figures` are those of step.c. */
int widehead_correct(int threads, const Correction *s) {
    Int d = s->d;
    double *v[VECTORS], size = 0.0, factor = 0.0, inverses = 0.0, known = 0.0, rows = 0.0, growth = 0.0, unused = 0.0;
    int refused = 0;
    for (int k = 0; k < VECTORS; k++) v[k] = s->work + k * d;
#pragma omp parallel num_threads(threads) firstprivate(unused) reduction(+ : factor, inverses, known, rows) \
    reduction(max : growth)
    {
        flush(s);
        find_smallest(s, v);
#pragma omp single
        {
            size = sqrt(inner(s->new_master, s->new_master, d * d) / d);
            refused = !(length(v[COLUMN], d) * size <= 1.0 / s->smallest); /* NaN too */
        }
        if (!refused) {
            exchange_direction(s, v, size);
            find_b(s, v);
            change_rows(s, v, &growth, &rows);
            round_rows(s, 0, d, &factor, &unused);
            round_rows(s, d, 2 * d + 2, &unused, &known);
            round_rows(s, 2 * d + 2, 3 * d + 2, &inverses, &unused);
        }
    }
    s->figures[0] = factor, s->figures[1] = inverses, s->figures[2] = growth;
    s->figures[3] = known, s->figures[4] = rows, s->figures[5] = 0.0;
    return refused;
}
