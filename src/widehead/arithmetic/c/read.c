/* What a forward and a backward pass read of float32 weights (common.h), and what the library says of itself. */
#include "parts.h"

#include <sys/syscall.h>
#include <unistd.h>

Gemm *widehead_sgemm;
static int (*limit_blas)(int); /* of the calling thread alone; NULL if the BLAS asks OpenMP */

void widehead_use(void *gemm, void *limit) {
    widehead_sgemm = (Gemm *)gemm;
    limit_blas = (int (*)(int))limit;
}

/* How many threads OpenMP and the BLAS take from now on if the calling thread asks them; `local` is the latter's, 0 for all
 * there are. Gives what `local` was. */
int widehead_limit(int threads, int local) {
    omp_set_num_threads(threads);
    return limit_blas ? limit_blas(local) : 0;
}

/* What the system calls the threads of the calling thread's parallel regions. */
void widehead_team(int threads, Int *ids) {
#pragma omp parallel num_threads(threads)
    ids[omp_get_thread_num()] = syscall(SYS_gettid);
}

/* Threads that OpenMP would take: those that torch was told, if both share one OpenMP. */
int widehead_threads(void) { return omp_get_max_threads(); }

/* What this build takes for granted: Python refuses a library with other numbers than interface.h has. */
void widehead_handshake(Int *out) {
    const Int known[] = {SLOTS, MOST_CORRECTIONS, NOWHERE,         FIGURES,      WRONG,
                         sizeof(RowTable), sizeof(Reading), sizeof(Step), sizeof(Correction)};
    memcpy(out, known, sizeof known);
}

/* Classes of sorted targets: fills class_ids (n,), class_offsets (n + 1,), positions and examples_by_class (nnz,);
 * gives n. Twin: TargetPlan.of. */
Int widehead_plan(Int nnz, const Int *sorted, const Int *by_class, const Int *examples, Int *class_ids,
                  Int *class_offsets, Int *positions, Int *examples_by_class) {
    Int n = 0;
    for (Int k = 0; k < nnz; k++) {
        if (k == 0 || sorted[k] != sorted[k - 1]) {
            class_ids[n] = sorted[k];
            class_offsets[n++] = k;
        }
        positions[by_class[k]] = n - 1;
        examples_by_class[k] = examples[by_class[k]];
    }
    class_offsets[n] = nnz;
    return n;
}

enum { SOME = 64, AT_ONCE = 512 }; /* rows of a task, and of a product */

/* products (m, 2c + 2) = H·[Uᵀ, ω, w̄, Q], q (m,); if all target rows have the version `newest`, also their values (n, c) and
 * what is read of them, each row once. Gives the number of rows of other versions, or WRONG if an id is no row.
 * Twin: Arithmetic.read_outputs. */
Int widehead_read(int threads, Int m, Int d, Int c, Int n, const float *hidden, const float *small, Int num_rows, const float
                  *table, const uint8_t *versions, int newest, const Int *class_ids, float *products, float *values, float
                  *squared_norm, const Reading *reading) {
    if (!within(class_ids, n, num_rows)) return WRONG;
    Int width = 2 * c + 2, stale = 0, is_large = n * c >= LARGE;
    double square = 0.0;
    for (Int i = 0; i < n; i++) stale += versions[class_ids[i]] != newest;
#pragma omp parallel num_threads(threads) reduction(+ : square)
    {
        Tile own = tile(m, width);
        for (Int begin = own.rows.begin; begin < own.rows.end; begin += AT_ONCE)
            product(0, 1, own.rows.end - begin < AT_ONCE ? own.rows.end - begin : AT_ONCE,
                    own.columns.end - own.columns.begin, d, 1.0f, hidden + begin * d, d, small + own.columns.begin * c, c,
                    0.0f, products + begin * width + own.columns.begin, width);
#pragma omp barrier
        Range examples = mine(m, 1);
        for (Int b = examples.begin; b < examples.end; b++) {
            float q = dot(products + b * width + c + 2, hidden + b * d, d);
            squared_norm[b] = q < 0.0f ? 0.0f : q; /* NaN stays */
        }
#pragma omp for schedule(dynamic, SOME)
        for (Int i = 0; i < (stale == 0 ? n : 0); i++) {
            const float *row = table + class_ids[i] * c;
            if (i + AHEAD < n) fetch(table + class_ids[i + AHEAD] * c, c);
            if (is_large) stream(values + i * c, row, c);
            else memcpy(values + i * c, row, sizeof(float) * c);
            square += read_row(reading, i, row, c);
        }
        drain();
    }
    *reading->square += square;
    return stale;
}

/* left (m, w) = [SV, S1, σ] with w = c + 1 or, if σ is given, c + 2; others = NW; by_hidden = TW. Gives Σ|λ|‖h‖².
 * Twin: Arithmetic.gradient. */
double widehead_gradient(int threads, Int m, Int d, Int c, const float *hidden, const float *by_squared_norm,
                         const float *constant, const float *sparse, const Int *offsets, const Int *positions,
                         const float *values, const float *products, const float *small, float *left, float *others,
                         float *by_hidden) {
    Int w = constant ? c + 2 : c + 1, width = 2 * c + 2;
    double bound = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : bound)
    {
        Range examples = mine(m, 1);
        Terms terms = {offsets, positions, NULL, sparse, values, c};
        widehead_add_sums(&terms, m, NULL, left, w);
        for (Int b = examples.begin; b < examples.end; b++) {
            float *row = left + b * w;
            row[c] = total(sparse + offsets[b], offsets[b + 1] - offsets[b]);
            if (constant) row[c + 1] = constant[b];
            bound += fabsf(by_squared_norm[b]) * dot(hidden + b * d, hidden + b * d, d);
        }
#pragma omp barrier
        Tile own = tile(m, d);
        Int first = own.columns.begin, count = own.columns.end - first;
        product(0, 0, own.rows.end - own.rows.begin, count, w, 1.0f, left + own.rows.begin * w, w, small + first, c,
                0.0f, others + own.rows.begin * d + first, d);
        for (Int b = own.rows.begin; b < own.rows.end; b++) {
            const float *gram = products + b * width + c + 2 + first, *other = others + b * d + first;
            float *out = by_hidden + b * d + first, factor = by_squared_norm[b];
#pragma omp simd
            for (Int j = 0; j < count; j++) out[j] = other[j] + factor * gram[j];
        }
    }
    return bound;
}
