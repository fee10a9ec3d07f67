"""Claims about exactness, kills and memory."""

from __future__ import annotations

from results import Claim, Column, Table, number, value_of

TWIN = Claim(
    "5,000 steps on hostile hidden layers, every loss",
    "Relative errors to a dense float64 twin that makes every step too. Hidden layers have one dominant direction and "
    "sizes over many orders, steps go up to the limit of stability, and some are singular.",
    "make test-slow",
    (
        Table(
            "benchmarks/results/exactness-5000-steps.txt",
            (
                Column("loss", "loss"),
                Column("type", "type"),
                Column("W", "of W", 1, ".1e"),
                Column("loss, relative error", "of loss", 1, ".1e"),
                Column("gradient of the hidden layer", "of gradient", 1, ".1e"),
            ),
            {},
        ),
    ),
    says=lambda rows: "".join(
        f"{kind}: W within {worst(rows, kind, 'of W')}, loss {worst(rows, kind, 'of loss')}, "
        f"gradient {worst(rows, kind, 'of gradient')}. "
        for kind in ("float32", "float64")
    ).strip(),
)


def worst(rows: list[dict[str, object]], kind: str, key: str) -> str:
    return number(max(value_of(row, key) for row in rows if row["type"] == kind), ".1e")


EVERY = Claim(
    "2,000 steps of every optimiser with every loss",
    "Each of SGD, momentum, Newton, Shampoo and Muon with each loss, against a dense float64 twin.",
    "make test-slow",
    noted="The tests demand that W is within 1e-5 of the twin's in float32 and within 1e-11 in float64. These are "
    "bounds, not measurements (tests/test_optimizer_table.py).",
)

SPLIT = Claim(
    "500 steps with the rows split over one to four processes",
    "D = 61, d = 8, batches of 1 to 19 examples of all processes together, ragged targets, hidden layers with one "
    "dominant direction. W of the process that is farthest, against a dense float64 matrix with the same steps.",
    "pytest -m slow -s tests/split/test_split_long.py",
    (
        Table(
            "benchmarks/results/split-500-steps.jsonl",
            (
                Column("loss", "loss"),
                Column("optimiser", "optimizer"),
                Column("type", "type"),
                *(Column(f"P = {size}", f"off_{size}", 1, ".1e") for size in (1, 2, 3, 4)),
            ),
            {},
        ),
    ),
    says=lambda rows: (
        "".join(
            f"{kind}, {len(of_kind)} of the 90 pairs of a loss and an optimiser: W within "
            + ", ".join(f"{worst(of_kind, kind, f'off_{size}')} (P = {size})" for size in (1, 2, 3, 4))
            + ". "
            for kind in ("float32", "float64")
            if (of_kind := [row for row in rows if row["type"] == kind])
        )
        + "The test demands 2e-6 and 1e-12."
    ),
)

DRIFT = Claim(
    "100,000 steps in float32",
    "D = 100,000, d = 64, 32 examples, two targets each, one dominant direction that turns, weight decay; nothing is "
    "refreshed.",
    "make test-slow",
    noted="Q is off from WᵀW by 8.9e-7 to 1.23e-6 at ten audits on the way, and by 1.0e-6 at the end. The raw output "
    "was not stored; it was noted in benchmarks/LOG.md on 2026-11-22.",
)

SOAK = Claim(
    "A million steps",
    "One million steps of SGD and one of Newton on hostile hidden layers, each beside a dense float64 twin.",
    "OMP_NUM_THREADS=1 pytest -m slow -s tests/test_exact_soak.py",
    noted="The table is in [Reliability](reliability.md#a-million-steps). The raw output was not stored; the table "
    "was written down from it on 2026-11-23 (commit a013666).",
)

KILLS = Claim(
    "Killed 200 times",
    "SIGKILL at a random moment, or while a checkpoint is being written, then `--resume`. A difference is any number "
    "of the last checkpoint, the log or the metrics that is not bit for bit that of the run that nobody killed.",
    "OMP_NUM_THREADS=1 python recipes/faults.py",
    (
        Table(
            "recipes/results/faults.jsonl",
            (
                Column("run", "run"),
                Column("kills", "kills"),
                Column("while a checkpoint was written", "killed_while_a_checkpoint_was_written"),
                Column("before the first checkpoint", "killed_before_the_first_checkpoint"),
                Column("checkpoints loaded", "checkpoints_loaded_after_a_kill"),
                Column("differences", "differences"),
            ),
            {},
        ),
    ),
    says=lambda rows: f"{sum(r['kills'] for r in rows)} kills, {sum(len(r['differences']) for r in rows)} differences.",
)

MAPPED = Claim(
    "20 million classes in a memory-mapped file",
    "d = 64, 128 examples of five targets, W (5.1 GB, half of it in bfloat16) in a file. Anonymous memory is what the "
    "process alone holds.",
    "python recipes/memory_mapped.py PATH",
    (
        Table(
            "recipes/results/memory-mapped.jsonl",
            (
                Column("stored as", "stored"),
                Column("anonymous memory, GB", "anonymous_bytes_peak", 1e-9, ".2f"),
                Column("of it before the head, GB", "anonymous_bytes_before", 1e-9, ".2f"),
                Column("ms a step", "milliseconds_a_step", 1, ".1f"),
                Column("drift of Q", "drift", 1, ".1e"),
            ),
            {"commit": ("09f9b98", "e7ead94-dirty")},
        ),
    ),
    says=lambda rows: (
        "The row in float32 is of the newest code with kernels; the one in bfloat16 is older and was made on one busy "
        "thread."
    ),
)

REACH = Claim(
    "100 million classes, rows split over two processes",
    "d = 32, 512 examples of both processes together, 27 targets each, 500 steps of Newton, W (12.8 GB) in two files. "
    "Anonymous memory is what a process alone holds, with the head and without; the larger of both processes.",
    "python recipes/split_rows.py --classes 100000000 --width 32 --batch 512 --steps 500 --processes 2 "
    "--storage FOLDER",
    (
        Table(
            "recipes/results/split-rows.jsonl",
            (
                Column("anonymous memory of a head, GB", "memory", 1e-9, ".2f"),
                Column("before it, GB", "without", 1e-9, ".2f"),
                Column("MB sent in a step by each", "bytes_sent", 1e-6, ".2f"),
                Column("drift of Q", "drift", 1, ".1e"),
            ),
            {"classes": 100_000_000},
        ),
    ),
    says=lambda rows: (
        f"A step took {1e3 * rows[0]['seconds']:.0f} ms, with one thread a process beside other work on both cores."
    ),
)

HALVES = Claim(
    "Memory of rows split over two processes",
    "D = 5,000,000, d = 64, 1,024 examples of all processes together, 27 targets each, 60 steps of Newton. Anonymous "
    "memory of the head in a process, at most, and what it gives to messages; one thread "
    "a process beside other work.",
    "python recipes/split_rows.py",
    (
        Table(
            "recipes/results/split-rows.jsonl",
            (
                Column("processes", "processes"),
                Column("anonymous memory of a head, GB", "memory", 1e-9, ".2f"),
                Column("MB given in a step by each", "bytes_sent", 1e-6, ".2f"),
                Column("drift of Q", "drift", 1, ".1e"),
            ),
            {"classes": 5_000_000},
        ),
    ),
    says=lambda rows: f"Each of two holds {value_of(rows[1], 'memory') / value_of(rows[0], 'memory'):.2f} of one's.",
)

RUNS = Claim(
    "A recommender's run of two processes: memory of each, and what it sends",
    "2 million pairs of 60,000 users and 210,000 items, one epoch, one thread a process. Memory is what a process "
    "alone holds, without the 0.2 GB of Python and torch; the larger of both, which is that of rank 0, who keeps the "
    "names and tries before whether near users should rank, by tables of 0.3 GB at most, whatever the data.",
    "python recipes/split_runs.py --pairs 2000000 --users 60000 --items 260000 --width 64, or --width 128 --preset "
    "trained",
    (
        Table(
            "recipes/results/split-runs.jsonl",
            (
                Column("preset", "preset"),
                Column("width", "width"),
                Column("processes", "processes"),
                Column("MB of pairs", "matrix", 1e-6, ".1f"),
                Column("MB after reading", "after_reading", 1e-6, ".0f"),
                Column("MB at most", "peak", 1e-6, ".0f"),
                Column("MB sent by each", "bytes_sent", 1e-6, ".0f"),
                Column("seconds of training", "seconds", 1, ".1f"),
            ),
            {},
        ),
    ),
    says=lambda rows: (
        "Two processes hold "
        + " and ".join(
            f"{value_of(two, 'peak') / value_of(one, 'peak'):.2f} (`{one['preset']}`)"
            for one, two in zip(rows[::2], rows[1::2], strict=True)
        )
        + " of one's memory each, and take longer: a split is for memory."
    ),
)

SEQUENCES = Claim(
    "Sequences and texts in two processes: memory of each",
    "A planted table, each user's items as a sequence, or as a line of text; the exact head, width 32, some seconds of "
    "steps, one thread a process beside other work. Memory is what a process alone holds, without the 0.2 GB of Python "
    "and torch; the larger of both. Data are ids of sequences and texts, and the matrix of words near one another.",
    "python recipes/split_runs.py --job next-item --pairs 6000000 --users 400000 --items 60000 --width 32 --preset "
    "exact, or --job language-model; --job word-embeddings --pairs 1000000 --users 50000 --items 8000 --width 32 "
    "--preset eigenvectors",
    (
        Table(
            "recipes/results/split-sequences.jsonl",
            (
                Column("job", "job"),
                Column("processes", "processes"),
                Column("items or words", "pairs", 1, ",.0f"),
                Column("MB of data", "matrix", 1e-6, ".1f"),
                Column("MB at most while reading", "while_reading", 1e-6, ".0f"),
                Column("MB after reading", "after_reading", 1e-6, ".0f"),
                Column("MB at most", "peak", 1e-6, ".0f"),
            ),
            {},
        ),
    ),
    says=lambda rows: (
        "After reading two processes hold "
        + ", ".join(
            f"{value_of(two, 'after_reading') / value_of(one, 'after_reading'):.2f} (`{one['job']}`)"
            for one, two in zip(rows[::2], rows[1::2], strict=True)
        )
        + " of one's memory each. What does not halve are names, while they are read, and what steps take."
    ),
)

TRAFFIC = Claim(
    "100 million classes on 8, 64 and 256 processes: counted, and computed",
    "d = 128, 128 examples a process, one target each, SGD. One process plays the first, with the real code and "
    "torch's fake process group. Bytes are what it sends if messages go round a ring. Milliseconds were computed from "
    "30 Tflop/s and 25 GB/s, not measured; likewise those of a full softmax with its rows split.",
    "python recipes/split_traffic.py --width 128",
    (
        Table(
            "recipes/results/split-traffic.jsonl",
            (
                Column("processes", "processes"),
                Column("MB sent in a step", "sent", 1e-6, ".1f"),
                Column("GB of rows", "rows", 1e-9, ".2f"),
                Column("MB of all else", "rest", 1e-6, ".1f"),
                Column("ms a step, computed", "computed_seconds", 1e3, ".2f"),
                Column("full softmax: MB sent", "softmax_sent", 1e-6, ".1f"),
                Column("ms, computed", "softmax_computed_seconds", 1e3, ".0f"),
            ),
            {},
        ),
    ),
    says=lambda rows: "No more than four processes have run together, and no GPU has.",
)

PEAK = Claim(
    "Memory beside W",
    "D = 2,000,000, d = 64: the peak of memory in sizes of V.",
    "python tests/support/peak.py 2000000 64 FOLDER",
    noted="Construction 1.015, training 1.004, saving 1.004, loading a checkpoint 1.046, `load_state_dict` 1.015, "
    "`audit` 1.019; 1.5 of the new size at the moment momentum begins. The raw results were not stored; they "
    "were noted in benchmarks/LOG.md on 2026-11-22 (commit 10e4991).",
)

HALF = Claim(
    "W in bfloat16",
    "D = 5,000, d = 64, 128 examples, 2,000 steps of five settings, beside float64. No command was kept.",
    "",
    noted="W is off by 1 to 13 % of its norm, the loss by 0.02 % and less; a step takes 1.2 times as "
    "long. The raw results were not stored; the table "
    "is in the docstring of the module that stores rows.",
)
