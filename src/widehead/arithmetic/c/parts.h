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

/* Sᵀ's terms of rows (m, width), class by class. */
static inline Terms terms_by_class(const Step *s, const float *rows, Int width) {
    return (Terms){s->class_offsets, s->examples_by_class, s->by_class, s->sparse, rows, width};
}

/* Reads row number `place`: the outputs at its targets; gives its square. */
static inline double read_row(const Reading *r, Int place, const float *row, Int c) {
    for (Int k = r->class_offsets[place]; k < r->class_offsets[place + 1]; k++) {
        const float *products = r->products + r->examples_by_class[k] * r->width;
        r->outputs[r->by_class[k]] = dot(products, row, c) + products[c];
    }
    return dot(row, row, c);
}

enum { BLOCKS = 2 }; /* the most blocks of d numbers in a row */

/* The numbers of a StepRule, see Step; p (k, k) and its inverse row by row. */
typedef struct { Int k; const double *mix, *gain, *phi, *inverse; } Rule;

static inline Rule rule_of(const Step *s) {
    Int k = s->c / s->d;
    const double *numbers = s->rule;
    return (Rule){k, numbers, numbers + k * k, numbers + k * k + k, numbers + k * k + 2 * k};
}

/* What is summed up for the figures: squares of U and of U⁻¹ by blocks, the most growth of a row by blocks, and numbers
 * of ω, w̄ and Q, and of the new rows; and squares of C. */
typedef struct { double factor[BLOCKS * BLOCKS], inverse[BLOCKS * BLOCKS], growth[BLOCKS], known, rows, solved; } Found;

/* Adds what a thread found to what others found, while they wait. */
void widehead_join(Found *all, const Found *own);

/* Writes the figures. */
void widehead_tell(const Step *s, const Found *all, double contraction);

/* New rows of the small state from number `first` on, of U, of ω and w̄, or of U⁻ᵀ: `grown` (count, d) is what they grow
 * by, in the units of f, or what U⁻ᵀ loses. If p is 1 rows of Q too, with half of what they grow by. By one thread. */
void widehead_grow(const Step *s, Int first, Int count, const float *grown, Found *found);

/* New rows of Q: `rows` of each block, from what `widehead_grow` left in `added` if p is 1, otherwise from all that half of
 * Q grows by, `grown` (c, d). By one thread, after all have done that. */
void widehead_grow_gram(const Step *s, Range rows, const float *grown, Found *found);

/* Sum number i, + row i of `onto` (n, d) if that is given, into `out` (d,), past the caches if it `streams`. By one
 * thread. */
void widehead_sum(const Terms *t, Int i, const float *onto, float *out, int streams);

/* Sums number [0, n), each + a row of `onto` (n, d) if that is given, in rows of `out` that are `stride` apart; gives Σ of
 * those that this thread made if there is `onto`. No barrier follows. */
double widehead_add_sums(const Terms *t, Int n, const float *onto, float *out, Int stride);

/* Columns of out (m, d) = SSᵀ·rows, class by class; by one thread. */
void widehead_gram_columns(const Terms *t, Range own, Int m, Int n, float *out);

/* A ← A⁻¹ of an A (n, n) by Gauss and Jordan, by one thread; other than 0 if a pivot is not above 0. */
int widehead_leaf_inverse(Int n, float *a, Int ld);

/* The most ‖C_b‖ / ‖(Hr)_b‖ of some examples, by blocks of C, and the squares of C; by one thread. */
void widehead_growth(const Step *s, Range examples, Found *found);

#endif
