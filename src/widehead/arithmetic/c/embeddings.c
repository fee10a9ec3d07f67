/* Rows of embeddings moved by the rules of optimisers (common.h). Rows are few among many, and memory is what moving them
 * costs: each number is read once and written once. Twins: Arithmetic.move_by_adam, move_by_adagrad. */
#include "common.h"

enum { TASK = 64 }; /* rows of a task */

int widehead_adam(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *gradient, double first,
                  double second, double eps, double length, float *means, float *squares, float *table) {
    if (!within(ids, n, num_rows)) return WRONG;
    float to_mean = (float)(1.0 - first), keeps = (float)second, to_square = (float)(1.0 - second);
    float small = (float)eps, by = (float)length;
#pragma omp parallel for num_threads(threads) schedule(dynamic, TASK)
    for (Int i = 0; i < n; i++) {
        const float *restrict g = gradient + i * c;
        float *restrict mean = means + ids[i] * c, *restrict square = squares + ids[i] * c;
        float *restrict row = table + ids[i] * c;
        if (i + 1 < n) {
            fetch(means + ids[i + 1] * c, c);
            fetch(squares + ids[i + 1] * c, c);
            fetch(table + ids[i + 1] * c, c);
        }
#pragma omp simd
        for (Int j = 0; j < c; j++) {
            mean[j] += to_mean * (g[j] - mean[j]);
            square[j] = keeps * square[j] + to_square * g[j] * g[j];
            row[j] -= by * (mean[j] / (sqrtf(square[j]) + small));
        }
    }
    return 0;
}

int widehead_adagrad(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *gradient, double lr,
                     double eps, float *sums, float *table) {
    if (!within(ids, n, num_rows)) return WRONG;
#pragma omp parallel for num_threads(threads) schedule(dynamic, TASK)
    for (Int i = 0; i < n; i++) {
        const float *g = gradient + i * c;
        if (i + AHEAD < n) fetch(table + ids[i + AHEAD] * c, c);
        float sum = sums[ids[i]] += dot(g, g, c) / (float)c;
        add_scaled(table + ids[i] * c, g, (float)-lr / (sqrtf(sum) + (float)eps), c);
    }
    return 0;
}
