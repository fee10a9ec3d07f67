/* What Python and C agree on: limits, structures and functions. Python reads this file (arithmetic/interface.py) and
 * makes its side from it, so each declaration has the plain form used here. Letters and names: common.h. */
#ifndef WIDEHEAD_INTERFACE_H
#define WIDEHEAD_INTERFACE_H

#include <stdint.h>

typedef int64_t Int;

/* A row's version below SLOTS is a slot; SLOTS + j: in the open interval, before rank-one correction number j. */
enum { SLOTS = 192, MOST_CORRECTIONS = 48, NOWHERE = -1, FIGURES = 13, WRONG = -1 };

/* Rows of V with their versions, and where rows go on from each: see `RowTable` in arithmetic/row_table.py. */
typedef struct {
    Int num_rows, c, slots;
    const float *table;
    const uint8_t *versions;
    const float *transforms;
    const uint8_t *behind;
    const int16_t *successors;
    const float *last, *corrections;
    Int base, previous, last_count, correction_count;
} RowTable;

/* What is read of rows on their way: a (nnz,) of the targets of class number i, [class_offsets[i], class_offsets[i + 1]) by
 * class, from HUᵀ and Hω in `products` (m, width); and to `square` is added ‖·‖² of the rows. */
typedef struct {
    Int width;
    const Int *class_offsets, *by_class, *examples_by_class;
    const float *products;
    float *outputs;
    double *square;
} Reading;

/* A step of rows of c numbers, which are k = c/d blocks. Given are the parts of an OutputGradient, its plan and the small
 * state; made are those of StepMade. If m > d, `others` (…, c) are of examples [first, end) alone, over which a part of the
 * sums is made. `rule` holds p (k, k), f (k), φ = f·p⁻¹ (k) and p⁻¹ (k, k). If p is 1, sums go on in `added`, and there is
 * no `master`; otherwise `master` is all of the sums, and `new_master` and `value` are made. If there is no `rows`, new target
 * rows are left to `widehead_write_sums`, and a bound of their numbers, from `norm` ‖values‖_F, stands for their sum. */
typedef struct {
    Int m, d, c, n, first, end;
    const float *hidden, *hr, *by_squared_norm, *constant, *sparse;
    const Int *class_offsets, *by_class, *examples_by_class;
    const float *products, *left, *others, *by_hidden, *values, *small_base, *small_added, *inverse_rows;
    const double *rule, *master;
    double num_classes, norm;
    float *solved, *added, *value, *rows, *work;
    double *new_master, *figures;
} Step;

/* A direction that is taken out of U; made are the parts of a Corrected. */
typedef struct {
    Int m, d, n;
    const double *master;
    const float *small_added, *solved, *hr, *values, *sparse;
    const Int *class_offsets, *by_class, *examples_by_class;
    double gain, smallest;
    double *new_master;
    float *base, *x, *b, *new_solved, *new_values, *rows;
    double *work, *figures;
} Correction;

int widehead_threads(void);
void widehead_use(void *gemm, void *limit);
int widehead_limit(int threads, int local);
void widehead_team(int threads, Int *ids);
void widehead_handshake(Int *out);
Int widehead_plan(Int nnz, const Int *sorted, const Int *by_class, const Int *examples, Int *class_ids, Int
                  *class_offsets, Int *positions, Int *examples_by_class);
Int widehead_read(int threads, Int m, Int d, Int c, Int n, const float *hidden, const float *small, Int num_rows, const float
                  *table, const uint8_t *versions, int newest, const Int *class_ids, float *products, float *values, float
                  *squared_norm, const Reading *reading);
double widehead_gradient(int threads, Int m, Int d, Int c, const float *hidden, const float *by_squared_norm, const float
                         *constant, const float *sparse, const Int *offsets, const Int *positions, const float
                         *values, const float *products, const float *small, float *left, float *others, float
                         *by_hidden);
Int widehead_bring_work(int threads, Int n, Int c);
int widehead_bring(int threads, Int n, const Int *ids, const RowTable *rows, int to_base, float *out, uint8_t
                   *reached, Int *work, const Reading *reading);
int widehead_write(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *rows, int version, const
                   uint8_t *each, float *table, uint8_t *versions);
int widehead_write_sums(int threads, Int num_rows, Int c, Int n, const Int *ids, const Int *class_offsets, const Int
                        *examples_by_class, const Int *by_class, const float *sparse, const float *solved, const float
                        *values, int version, float *table, uint8_t *versions);
Int widehead_find(const uint8_t *versions, Int start, Int stop, const uint8_t *wanted, Int most, Int *found, Int
                  *seen);
void widehead_sums(int threads, Int n, Int d, const Int *offsets, const Int *which, const Int *order, const float
                   *weights, const float *rows, const float *onto, float *out);
void widehead_gram(int threads, Int m, Int n, Int d, const Int *class_offsets, const Int *examples_by_class, const Int
                   *by_class, const float *sparse, const float *right, float *out);
Int widehead_step_work(int threads, Int m, Int d, Int c);
int widehead_step(int threads, const Step *s);
Int widehead_columns_work(Int m, Int d, Int c);
int widehead_example_sums(int threads, const Step *s);
int widehead_columns(int threads, const Step *s);
int widehead_adam(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *gradient, double first, double
                  second, double eps, double length, float *means, float *squares, float *table);
int widehead_adagrad(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *gradient, double lr, double
                     eps, float *sums, float *table);
Int widehead_correct_work(Int d);
int widehead_correct(int threads, const Correction *s);
void widehead_classifiers(int threads, Int first, Int count, Int features, Int most, const Int *row_offsets, const int32_t
                          *columns, const float *values, const double *squares, const Int *offsets, const int32_t
                          *rows, const int8_t *signs, double cost, Int passes, double close, double smallest, const Int
                          *places, double *work, int32_t *out_columns, float *out_values, Int *counts, float *biases);
void widehead_margins(int threads, Int count, Int num_labels, const Int *row_offsets, const int32_t *columns, const float
                      *values, const Int *rows, const Int *labels, const Int *offsets, const int32_t *of_labels,
                      const float *weights, const float *biases, float *work, double *margins);

#endif
