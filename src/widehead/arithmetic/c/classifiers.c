/* Linear classifiers of labels on sparse rows, each from the few examples that it is to tell apart. */
#include "common.h"

/* Sparse rows, and of one label which of them are examples, with the sign of each. */
typedef struct {
    const Int *offsets;
    const int32_t *columns;
    const float *values;
    const double *squares;
    Int count;
    const int32_t *rows;
    const int8_t *signs;
} Examples;

static double times(const Examples *e, Int row, const double *w) {
    double sum = 0.0;
    for (Int k = e->offsets[row]; k < e->offsets[row + 1]; k++) sum += w[e->columns[k]] * e->values[k];
    return sum;
}

static void shuffle(Int *order, Int count, uint64_t *state) {
    for (Int i = 0; i < count - 1; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        Int j = i + (Int)(*state % (uint64_t)(count - i)), other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
}

/* One variable of the dual at a time (Hsieh et al. 2008, "A dual coordinate descent method for large-scale linear SVM",
 * algorithm 1). The bias is the weight of a feature that is 1 in all rows. w (features,) is zero before. */
static double descended(const Examples *e, double cost, Int passes, double close, uint64_t seed, double *w, double *dual,
                        Int *order) {
    double bias = 0.0, diagonal = 0.5 / cost;
    for (Int i = 0; i < e->count; i++) dual[i] = 0.0, order[i] = i;
    for (Int pass = 0; pass < passes; pass++) {
        double worst = 0.0;
        shuffle(order, e->count, &seed);
        for (Int place = 0; place < e->count; place++) {
            Int i = order[place], row = e->rows[i];
            double sign = e->signs[i], slope = sign * (times(e, row, w) + bias) - 1.0 + diagonal * dual[i];
            if (dual[i] == 0.0 && slope > 0.0) continue;
            if (fabs(slope) > worst) worst = fabs(slope);
            double next = dual[i] - slope / (e->squares[row] + 1.0 + diagonal);
            if (next < 0.0) next = 0.0;
            double change = (next - dual[i]) * sign;
            dual[i] = next;
            bias += change;
            for (Int k = e->offsets[row]; k < e->offsets[row + 1]; k++) w[e->columns[k]] += change * e->values[k];
        }
        if (worst <= close) break;
    }
    return bias;
}

/* The weights above `smallest`, and w (features,) zero again. */
static Int taken(const Examples *e, double smallest, double *w, int32_t *columns, float *values) {
    Int count = 0;
    for (Int i = 0; i < e->count; i++) {
        Int row = e->rows[i];
        for (Int k = e->offsets[row]; k < e->offsets[row + 1]; k++) {
            int32_t column = e->columns[k];
            if (fabs(w[column]) > smallest) columns[count] = column, values[count++] = (float)w[column];
            w[column] = 0.0;
        }
    }
    return count;
}

/* Labels number `first` to `first + count`. `work`: threads · (features + 2 · most) doubles, of zeros, with `most` the
 * largest number of examples; what label i gets begins at places[i]. Twin: models/classifiers.py. */
void widehead_classifiers(int threads, Int first, Int count, Int features, Int most, const Int *row_offsets, const int32_t
                          *columns, const float *values, const double *squares, const Int *offsets, const int32_t
                          *rows, const int8_t *signs, double cost, Int passes, double close, double smallest, const Int
                          *places, double *work, int32_t *out_columns, float *out_values, Int *counts, float *biases) {
#pragma omp parallel num_threads(threads)
    {
        double *w = work + omp_get_thread_num() * (features + 2 * most), *dual = w + features;
        Int *order = (Int *)(dual + most);
#pragma omp for schedule(dynamic, 16)
        for (Int i = 0; i < count; i++) {
            Int label = first + i, begin = offsets[label];
            Examples e = {row_offsets, columns, values, squares, offsets[label + 1] - begin, rows + begin, signs + begin};
            uint64_t seed = 0x9E3779B97F4A7C15u * (uint64_t)(label + 1);
            biases[i] = (float)descended(&e, cost, passes, close, seed, w, dual, order);
            counts[i] = taken(&e, smallest, w, out_columns + places[i], out_values + places[i]);
        }
    }
}

/* Margins w·x + b of pairs of a row and a label, rows rising. The weights by feature: those of feature j begin at
 * offsets[j]. `work`: threads · labels floats. Twin: models/classifiers.py. */
void widehead_margins(int threads, Int count, Int num_labels, const Int *row_offsets, const int32_t *columns, const float
                      *values, const Int *rows, const Int *labels, const Int *offsets, const int32_t *of_labels,
                      const float *weights, const float *biases, float *work, double *margins) {
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num(), all = omp_get_num_threads();
        Int first = count * thread / all, end = count * (thread + 1) / all;
        float *sums = work + thread * num_labels;
        for (Int i = first; i < end; i++) {
            if (i == first || rows[i - 1] != rows[i]) {
                memset(sums, 0, (size_t)num_labels * sizeof(float));
                for (Int k = row_offsets[rows[i]]; k < row_offsets[rows[i] + 1]; k++) {
                    float x = values[k];
                    for (Int j = offsets[columns[k]]; j < offsets[columns[k] + 1]; j++) sums[of_labels[j]] += x * weights[j];
                }
            }
            margins[i] = (double)biases[labels[i]] + sums[labels[i]];
        }
    }
}
