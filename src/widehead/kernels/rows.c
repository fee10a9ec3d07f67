/* Rows of V in generations: brought forward, and written (common.h, factored/generations.py). */
#include "common.h"

enum { SLOTS = 192, GROUP = 64, MOST_BENDS = 64, NOWHERE = -1 };

/* Where rows go on. Stamps below SLOTS are slots; SLOTS + j stands in the open epoch, before bend number j. */
typedef struct {
    Int c;                    /* columns */
    const float *table;       /* V (D, c) */
    const uint8_t *stamps;    /* (D,) */
    const float *transforms;  /* (slots, c, c) */
    const uint8_t *pending;   /* (SLOTS,) whether a slot's transform leads to `waypoint` only */
    const int16_t *heirs;     /* (SLOTS,) to which slot it leads otherwise; NOWHERE: to `base` */
    const float *last, *bends; /* X and M (2, k, c) of the epoch before, and of the open one */
    Int base, waypoint, last_count, bend_count;
} Places;

/* rows (n, c) ← rows + (rows·Xᵀ)·M with bends number `first` and later. Twin: Bends.applied. */
static void bend_rows(const float *both, Int count, Int first, Int n, Int c, float *rows, float *parts) {
    Int k = count - first;
    product(0, 1, n, k, c, 1.0f, rows, c, both + first * c, c, 0.0f, parts, k);
    if (k > 0) product(0, 0, n, c, k, 1.0f, parts, k, both + (count + first) * c, c, 1.0f, rows, c);
}

/* Rows that stand at `slot`, brought to `base` or, unless `to_base`, to the first slot that has no heir; says where
 * they are then. `rows` and `other` (n, c) are exchanged by each product. Twin: Generations._through. */
static Int through(const Places *p, Int slot, int to_base, Int n, float **rows, float **other, float *parts) {
    Int c = p->c;
    for (;;) {
        product(0, 0, n, c, c, 1.0f, *rows, c, p->transforms + slot * c * c, c, 0.0f, *other, c);
        float *made = *other;
        *other = *rows, *rows = made;
        if (p->pending[slot] && p->last_count > 0) {
            bend_rows(p->last, p->last_count, 0, n, c, *rows, parts);
            return p->base;
        }
        if (p->pending[slot]) {
            product(0, 0, n, c, c, 1.0f, *rows, c, p->transforms + p->waypoint * c * c, c, 0.0f, *other, c);
            made = *other;
            *other = *rows, *rows = made;
            return p->base;
        }
        Int next = p->heirs[slot];
        if (next == NOWHERE || next == p->base) return p->base;
        if (!to_base && p->heirs[next] == NOWHERE) return next;
        slot = next;
    }
}

static void bring_group(const Places *p, Int stamp, int to_base, const Int *ids, const Int *places, Int n, float *rows,
                        float *other, float *parts, float *out, uint8_t *reached) {
    Int c = p->c, stands = stamp;
    for (Int i = 0; i < n; i++) memcpy(rows + i * c, p->table + ids[places[i]] * c, sizeof(float) * c);
    if (stamp < SLOTS && stamp != p->base) stands = through(p, stamp, to_base, n, &rows, &other, parts);
    if (to_base) bend_rows(p->bends, p->bend_count, stamp < SLOTS ? 0 : stamp - SLOTS, n, c, rows, parts);
    for (Int i = 0; i < n; i++) {
        memcpy(out + places[i] * c, rows + i * c, sizeof(float) * c);
        if (reached) reached[places[i]] = (uint8_t)stands;
    }
}

/* Rows of each task: those of one stamp, no more than a group. */
static Int split(const Places *p, Int n, const Int *ids, Int *order, Range *tasks) {
    Int counts[257] = {0}, count = 0;
    for (Int i = 0; i < n; i++) counts[p->stamps[ids[i]] + 1]++;
    for (Int s = 0; s < 256; s++) {
        for (Int begin = 0; begin < counts[s + 1]; begin += GROUP) {
            Int end = begin + GROUP < counts[s + 1] ? begin + GROUP : counts[s + 1];
            tasks[count++] = (Range){counts[s] + begin, counts[s] + end};
        }
        counts[s + 1] += counts[s];
    }
    for (Int i = 0; i < n; i++) order[counts[p->stamps[ids[i]]]++] = i;
    return count;
}

/* Bytes of scratch that `widehead_bring` wants. */
Int widehead_bring_work(int threads, Int n, Int c) {
    return (n + 2 * (n / GROUP + 257)) * sizeof(Int) + threads * (2 * GROUP * c + GROUP * MOST_BENDS) * sizeof(float);
}

/* out (n, c) ← the rows `ids` (n,) of V at the newest boundary; where not `to_base`, as far as the first slot that has
 * no heir, and `reached` (n,) says which. Twins: Generations.rows_at_newest and ._move. */
void widehead_bring(int threads, Int n, const Int *ids, const Places *p, int to_base, float *out, uint8_t *reached,
                    Int *work) {
    Int *order = work, group_size = 2 * GROUP * p->c + GROUP * MOST_BENDS;
    Range *tasks = (Range *)(order + n);
    float *buffers = (float *)(tasks + n / GROUP + 257);
    Int count = split(p, n, ids, order, tasks);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (Int t = 0; t < count; t++) {
        float *rows = buffers + omp_get_thread_num() * group_size, *other = rows + GROUP * p->c;
        const Int *places = order + tasks[t].begin;
        bring_group(p, p->stamps[ids[places[0]]], to_base, ids, places, tasks[t].end - tasks[t].begin, rows, other,
                    other + GROUP * p->c, out, reached);
    }
}

/* V[ids] ← rows (n, c), and their stamps: those of `each` (n,) where given, `stamp` otherwise; with `each`, numbers
 * below 1e-30, whose products are slow, become 0. Twin: Generations._put. */
void widehead_write(int threads, Int c, Int n, const Int *ids, const float *rows, int stamp, const uint8_t *each,
                    float *table, uint8_t *stamps) {
#pragma omp parallel num_threads(threads)
    {
        Range own = mine(n, 1);
        for (Int i = own.begin; i < own.end; i++) {
            const float *row = rows + i * c;
            float *to = table + ids[i] * c;
            for (Int j = 0; j < c; j++) to[j] = each && fabsf(row[j]) <= 1e-30f ? 0.0f : row[j];
            stamps[ids[i]] = each ? each[i] : (uint8_t)stamp;
        }
    }
}

/* Rows from `start` to `stop` whose stamps are `wanted` (256 flags), rising: the first `most` of them into `found`;
 * says how many, and in `seen` how far it looked. Twin: Generations._to_move. */
Int widehead_find(const uint8_t *stamps, Int start, Int stop, const uint8_t *wanted, Int most, Int *found, Int *seen) {
    Int count = 0, i = start;
    for (; i < stop && count < most; i += LINE) {
        Int end = i + LINE < stop ? i + LINE : stop;
        unsigned any = 0;
        for (Int k = i; k < end; k++) any |= wanted[stamps[k]];
        for (Int k = i; any && k < end; k++) {
            if (!wanted[stamps[k]]) continue;
            if (count == most) {
                *seen = k;
                return count;
            }
            found[count++] = k;
        }
    }
    *seen = i < stop ? i : stop;
    return count;
}
