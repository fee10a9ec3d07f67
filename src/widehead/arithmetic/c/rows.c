/* Rows of V with versions: brought forward, written and found (common.h, interface.h). */
#include "parts.h"

enum { GROUP = 64 }; /* rows of a task */

/* rows (n, c) ← rows + (rows·Xᵀ)·M with corrections number `first` and later. Twin: Corrections.applied. */
static void correct_rows(const float *both, Int count, Int first, Int n, Int c, float *rows, float *parts) {
    Int k = count - first;
    product(0, 1, n, k, c, 1.0f, rows, c, both + first * c, c, 0.0f, parts, k);
    if (k > 0) product(0, 0, n, c, k, 1.0f, parts, k, both + (count + first) * c, c, 1.0f, rows, c);
}

/* Rows at `slot`, brought to `base` or, unless `to_base`, to the first slot that has no successor; gives that slot, or
 * WRONG if successors form a circle. Each product exchanges `rows` and `other` (n, c). Twin: _through in row_table.py. */
static Int through(const RowTable *p, Int slot, int to_base, Int n, float **rows, float **other, float *parts) {
    Int c = p->c;
    for (Int met = 0; met <= SLOTS; met++) {
        product(0, 0, n, c, c, 1.0f, *rows, c, p->transforms + slot * c * c, c, 0.0f, *other, c);
        float *made = *other;
        *other = *rows, *rows = made;
        if (p->behind[slot] && p->last_count > 0) {
            correct_rows(p->last, p->last_count, 0, n, c, *rows, parts);
            return p->base;
        }
        if (p->behind[slot]) {
            product(0, 0, n, c, c, 1.0f, *rows, c, p->transforms + p->previous * c * c, c, 0.0f, *other, c);
            made = *other;
            *other = *rows, *rows = made;
            return p->base;
        }
        Int next = p->successors[slot];
        if (next == NOWHERE || next == p->base) return p->base;
        if (!to_base && p->successors[next] == NOWHERE) return next;
        slot = next;
    }
    return WRONG;
}

static int bring_group(const RowTable *p, Int version, int to_base, const Int *ids, const Int *places, Int n,
                       float *rows, float *other, float *parts, float *out, uint8_t *reached, const Reading *reading,
                       double *square) {
    Int c = p->c, stands = version;
    if (version < SLOTS ? version >= p->slots : version - SLOTS > p->correction_count) return WRONG;
    for (Int i = 0; i < n; i++) {
        if (i + AHEAD < n) fetch(p->table + ids[places[i + AHEAD]] * c, c);
        memcpy(rows + i * c, p->table + ids[places[i]] * c, sizeof(float) * c);
    }
    if (version < SLOTS && version != p->base) stands = through(p, version, to_base, n, &rows, &other, parts);
    if (stands == WRONG) return WRONG;
    Int first = version < SLOTS ? 0 : version - SLOTS;
    if (to_base) correct_rows(p->corrections, p->correction_count, first, n, c, rows, parts);
    for (Int i = 0; i < n; i++) {
        memcpy(out + places[i] * c, rows + i * c, sizeof(float) * c);
        if (reading) *square += read_row(reading, places[i], rows + i * c, c);
        if (reached) reached[places[i]] = (uint8_t)stands;
    }
    return 0;
}

/* Rows of each task: those of one version, no more than a group. */
static Int split(const RowTable *p, Int n, const Int *ids, Int *order, Range *tasks) {
    Int counts[257] = {0}, count = 0;
    for (Int i = 0; i < n; i++) counts[p->versions[ids[i]] + 1]++;
    for (Int s = 0; s < 256; s++) {
        for (Int begin = 0; begin < counts[s + 1]; begin += GROUP) {
            Int end = begin + GROUP < counts[s + 1] ? begin + GROUP : counts[s + 1];
            tasks[count++] = (Range){counts[s] + begin, counts[s] + end};
        }
        counts[s + 1] += counts[s];
    }
    for (Int i = 0; i < n; i++) order[counts[p->versions[ids[i]]]++] = i;
    return count;
}

/* Bytes of scratch that `widehead_bring` wants. */
Int widehead_bring_work(int threads, Int n, Int c) {
    Int group_size = 2 * GROUP * c + GROUP * MOST_CORRECTIONS;
    return (n + 2 * (n / GROUP + 257)) * sizeof(Int) + threads * group_size * sizeof(float);
}

/* Whether slots, corrections and ids are within their bounds, so that nothing outside is read or written. */
static int is_sound(const RowTable *p, Int n, const Int *ids) {
    int sound = p->slots <= SLOTS && p->base >= 0 && p->base < p->slots && p->previous >= 0 && p->previous < p->slots;
    sound &= p->last_count <= MOST_CORRECTIONS && p->correction_count <= MOST_CORRECTIONS;
    for (Int s = 0; s < SLOTS; s++) sound &= p->successors[s] >= NOWHERE && p->successors[s] < p->slots;
    return sound && within(ids, n, p->num_rows);
}

/* out (n, c) ← the rows `ids` (n,) of V at the newest version; unless `to_base`, at the first slot that has no
 * successor, and `reached` (n,) says which. With `reading` the ids are the classes of targets, whose outputs are read.
 * Gives WRONG if the table contradicts itself.
 * Twin: Arithmetic.bring_rows. */
int widehead_bring(int threads, Int n, const Int *ids, const RowTable *p, int to_base, float *out, uint8_t *reached,
                   Int *work, const Reading *reading) {
    if (!is_sound(p, n, ids)) return WRONG;
    Int *order = work, group_size = 2 * GROUP * p->c + GROUP * MOST_CORRECTIONS;
    Range *tasks = (Range *)(order + n);
    float *buffers = (float *)(tasks + n / GROUP + 257);
    Int count = split(p, n, ids, order, tasks);
    int wrong = 0;
    double square = 0.0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : wrong) reduction(+ : square)
    for (Int t = 0; t < count; t++) {
        float *rows = buffers + omp_get_thread_num() * group_size, *other = rows + GROUP * p->c;
        const Int *places = order + tasks[t].begin;
        Int version = p->versions[ids[places[0]]], size = tasks[t].end - tasks[t].begin;
        wrong |= bring_group(p, version, to_base, ids, places, size, rows, other, other + GROUP * p->c, out, reached,
                             reading, &square);
    }
    if (reading) *reading->square += square;
    return wrong;
}

/* V[ids] ← rows (n, c), and their versions: those of `each` (n,) if given, `version` otherwise; with `each`, numbers
 * below 1e-30, whose products are slow, become 0. Gives WRONG if an id is no row. Twin: Arithmetic.write_rows. */
int widehead_write(int threads, Int num_rows, Int c, Int n, const Int *ids, const float *rows, int version,
                   const uint8_t *each, float *table, uint8_t *versions) {
    if (!within(ids, n, num_rows)) return WRONG;
#pragma omp parallel num_threads(threads)
    {
        Range own = mine(n, 1);
        for (Int i = own.begin; i < own.end; i++) {
            const float *row = rows + i * c;
            float *to = table + ids[i] * c;
            if (i + AHEAD < own.end) fetch(table + ids[i + AHEAD] * c, c);
            for (Int j = 0; j < c; j++) to[j] = each && fabsf(row[j]) <= 1e-30f ? 0.0f : row[j];
            versions[ids[i]] = each ? each[i] : (uint8_t)version;
        }
    }
    return 0;
}

/* V[ids] ← values (n, c) + SᵀC, for C (m, c), and their version; WRONG as above. Twin: RowSums.made, written. */
int widehead_write_sums(int threads, Int num_rows, Int c, Int n, const Int *ids, const Int *class_offsets, const Int
                        *examples_by_class, const Int *by_class, const float *sparse, const float *solved, const float
                        *values, int version, float *table, uint8_t *versions) {
    if (!within(ids, n, num_rows)) return WRONG;
    Terms terms = {class_offsets, examples_by_class, by_class, sparse, solved, c};
    int is_large = n * c >= LARGE;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic, GROUP)
        for (Int i = 0; i < n; i++) {
            if (!is_large && i + AHEAD < n) fetch(table + ids[i + AHEAD] * c, c);
            widehead_sum(&terms, i, values, table + ids[i] * c, is_large);
            versions[ids[i]] = (uint8_t)version;
        }
        drain();
    }
    return 0;
}

/* Rows from `start` to `stop` whose versions are `wanted` (256 flags), rising: the first `most` of them into `found`;
 * says how many, and in `seen` how far it looked. Twin: Arithmetic.find_rows. */
Int widehead_find(const uint8_t *versions, Int start, Int stop, const uint8_t *wanted, Int most, Int *found,
                  Int *seen) {
    Int count = 0, i = start;
    for (; i < stop && count < most; i += LINE) {
        Int end = i + LINE < stop ? i + LINE : stop;
        unsigned any = 0;
        for (Int k = i; k < end; k++) any |= wanted[versions[k]];
        for (Int k = i; any && k < end; k++) {
            if (!wanted[versions[k]]) continue;
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
