/* Parts that several steps have; parts.h says what they do. */
#include "parts.h"

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

void widehead_settle(const Step *s, Int first, Int count, const float *more, double *square, double *sum) {
    const float *old = s->small_added + first, *base = s->small_base + first;
    float *added = s->added + first, *value = s->value + first, squares = 0.0f, numbers = 0.0f;
#pragma omp simd reduction(+ : squares, numbers)
    for (Int i = 0; i < count; i++) {
        float grown = more[i] + old[i], now = base[i] + grown;
        added[i] = grown;
        value[i] = now;
        squares += now * now;
        numbers += now;
    }
    *square += squares;
    *sum += numbers;
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

static inline void transpose(Vector *rows) {
    exchange(rows, 8);
    exchange(rows, 4);
    exchange(rows, 2);
    exchange(rows, 1);
}

double widehead_symmetrised(const Step *s, Range rows) {
    Int d = s->d;
    const float *added = s->added + (d + 2) * d;
    float *value = s->value + (d + 2) * d;
    double sum = 0.0;
    for (Int i = rows.begin; i < rows.end; i += LINE)
        for (Int j = 0; j < d; j += LINE) {
            if (rows.end - i < LINE || d - j < LINE) {
                for (Int a = i; a < rows.end && a < i + LINE; a++)
                    for (Int b = j; b < d && b < j + LINE; b++) sum += value[a * d + b] += added[b * d + a];
                continue;
            }
            Vector block[LINE], total_of = {0};
            for (int b = 0; b < LINE; b++) block[b] = *(const Vector *)(added + (j + b) * d + i);
            transpose(block);
            for (int a = 0; a < LINE; a++) {
                Vector *out = (Vector *)(value + (i + a) * d + j);
                *out += block[a];
                total_of += *out;
            }
            for (int k = 0; k < LINE; k++) sum += total_of[k];
        }
    return sum;
}

double widehead_growth(const Step *s, Range examples) {
    double growth = 0.0;
    for (Int b = examples.begin; b < examples.end; b++) {
        float given = sqrtf(dot(s->hr + b * s->d, s->hr + b * s->d, s->d));
        float now = sqrtf(dot(s->solved + b * s->d, s->solved + b * s->d, s->d)) / (given > 1.2e-38f ? given : 1.2e-38f);
        if (now > growth) growth = now;
    }
    return growth;
}
