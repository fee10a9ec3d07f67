/* Parts of a step that several files have, each called by all threads of a parallel region unless it says otherwise. */
#ifndef WIDEHEAD_PARTS_H
#define WIDEHEAD_PARTS_H

#include "common.h"

enum { LEAF = 16 }; /* order of a system that is inverted row by row */

/* Terms `weights` at `order` (or one after the other without it) times `rows` (…, d) at `which`; those of sum number i
 * stand in [offsets[i], offsets[i + 1]). */
typedef struct {
    const Int *offsets, *which, *order;
    const float *weights, *rows;
    Int d;
} Terms;

/* Sᵀ's terms of rows (m, d), class by class. */
static inline Terms terms_by_class(const Step *s, const float *rows) {
    return (Terms){s->class_offsets, s->examples_by_class, s->by_class, s->sparse, rows, s->d};
}

/* Sums number [0, n), each + a row of `onto` (n, d) if that is given, in rows of `out` that are `stride` apart; gives Σ of
 * those that this thread made if there is `onto`. No barrier follows. */
double widehead_add_sums(const Terms *t, Int n, const float *onto, float *out, Int stride);

/* Columns of out (m, d) = SSᵀ·rows, class by class; by one thread. */
void widehead_gram_columns(const Terms *t, Range own, Int m, Int n, float *out);

/* A ← A⁻¹ of an A (n, n) by Gauss and Jordan, by one thread; other than 0 if a pivot is not above 0. */
int widehead_leaf_inverse(Int n, float *a, Int ld);

/* added ← old + more and value ← base + added for `count` numbers of the small state from number `first` on; `more` may be
 * what stands in `added`. Adds Σ value² to `square` and Σ value to `sum`. By one thread. */
void widehead_settle(const Step *s, Int first, Int count, const float *more, double *square, double *sum);

/* Rows of Q's value get the transpose of what was added, too; gives Σ of them. By one thread. */
double widehead_symmetrised(const Step *s, Range rows);

/* The most ‖C_b‖ / ‖(Hr)_b‖ of some examples; by one thread. */
double widehead_growth(const Step *s, Range examples);

#endif
