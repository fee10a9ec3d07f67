/* Parts that several steps have; parts.h says what they do. */
#include "parts.h"

#include <float.h>

int widehead_leaf_inverse(Int n, float *a, Int ld) {
    for (Int k = 0; k < n; k++) {
        float pivot = a[k * ld + k];
        if (!(pivot > 0.0f && pivot < INFINITY)) return 1;
        float inverse = 1.0f / pivot, *row = a + k * ld;
        row[k] = 1.0f;
#pragma omp simd
        for (Int j = 0; j < n; j++) row[j] *= inverse;
        for (Int i = 0; i < n; i++) {
            if (i == k) continue;
            float factor = a[i * ld + k], *other = a + i * ld;
            other[k] = 0.0f;
            add_scaled(other, row, -factor, n);
        }
    }
    return 0;
}

void widehead_growth(const Step *s, Range examples, Found *found) {
    Int d = s->d, c = s->c;
    for (Int b = examples.begin; b < examples.end; b++) {
        float given = sqrtf(dot(s->hr + b * d, s->hr + b * d, d));
        for (Int j = 0; j < c / d; j++) {
            const float *made = s->solved + b * c + j * d;
            double square = dot(made, made, d), now = sqrt(square) / (given > 1.2e-38f ? given : 1.2e-38f);
            found->solved += square;
            if (now > found->growth[j]) found->growth[j] = now;
        }
    }
}

void widehead_join(Found *all, const Found *own) {
#pragma omp critical
    {
        for (Int i = 0; i < BLOCKS * BLOCKS; i++) all->factor[i] += own->factor[i], all->inverse[i] += own->inverse[i];
        for (Int j = 0; j < BLOCKS; j++)
            if (own->growth[j] > all->growth[j]) all->growth[j] = own->growth[j];
        all->known += own->known;
        all->rows += own->rows;
        all->solved += own->solved;
    }
}

/* What no number of V + SᵀC is larger than, by Cauchy and Schwarz: ‖V‖ + ‖g‖‖C‖; infinite if a float32 may be too small. */
static double bound_of_rows(const Step *s, double solved) {
    double square = 0.0;
    for (Int k = 0; k < s->class_offsets[s->n]; k++) square += (double)s->sparse[k] * s->sparse[k];
    double bound = s->norm + sqrt(square) * sqrt(solved);
    return bound <= FLT_MAX ? bound : INFINITY; /* NaN too */
}

void widehead_tell(const Step *s, const Found *all, double contraction) {
    Int k = s->c / s->d, kk = k * k;
    double *figures = s->figures;
    for (Int i = 0; i < kk; i++) figures[i] = all->factor[i], figures[kk + i] = all->inverse[i];
    for (Int j = 0; j < k; j++) figures[2 * kk + j] = all->growth[j];
    double *last = figures + 2 * kk + k;
    last[0] = all->known, last[1] = s->rows ? all->rows : bound_of_rows(s, all->solved), last[2] = contraction;
}
