"""Claims about the time of a step."""

from __future__ import annotations

from statistics import geometric_mean

from results import Claim, Column, Pivot, Table, median

PAPER = {"classes": 793_471, "width": 300, "batch": 128, "kernels": True}

METHOD = Column("method", "method")

MS = Column("ms a step", "seconds", 1e3, ".2f")

CLASSES = Column("D =", "classes", 1, ",d")

STEP = Claim(
    "One step against dense PyTorch",
    "D = 793,471 classes, d = 300, 128 examples, one target each, squared error, SGD, float32: the sizes of the table "
    "in the paper. A step is forward, backward to the hidden layer and the weights, and update; the dense layer is "
    "`nn.Linear` with the same loss and `torch.optim.SGD`. The floor is the time of the 14·d²·m floating-point "
    "operations that the method needs, in one large matrix product.",
    "widehead bench output-layer --classes 793471 --width 300 --batch 128",
    (
        Table(
            "benchmarks/results/output-layer.jsonl",
            (
                METHOD,
                Column("times faster than dense", "ratio_to_dense", 1, ",.0f"),
                MS,
                Column("in floors", "ratio_to_floor", 1, ".1f"),
            ),
            {**PAPER, "method": "exact", "ratio_to_dense": ...},
        ),
        Table(
            "benchmarks/results/output-layer.jsonl",
            (
                METHOD,
                Column("times faster than dense", "ratio_to_dense", 1, ",.0f"),
                MS,
                Column("in floors", "ratio_to_floor", 1, ".1f"),
            ),
            {**PAPER, "method": "exact-without-kernels"},
        ),
    ),
    says=lambda rows: (
        f"{len(rows)} runs: the exact step is {min(r['ratio_to_dense'] for r in rows):,.0f} to "
        f"{max(r['ratio_to_dense'] for r in rows):,.0f} times faster than the dense one, "
        f"{median(rows, 'ratio_to_dense', ',.0f')} in the median. In three of them the step without compiled kernels "
        "took turns with it (second table)."
    ),
)

CLASSES_10 = Claim(
    "One step from 10⁵ to 10⁷ classes",
    "d = 64, 128 examples, one target each. The one at 3,000,000 fell into a slow phase of the machine.",
    "widehead bench output-layer --classes 100000,300000,1000000,3000000,10000000 --width 64 --methods "
    "exact,exact-without-kernels",
    (
        Pivot(
            "benchmarks/results/output-layer.jsonl", METHOD, CLASSES, MS, {"width": 64, "batch": 128, "kernels": True}
        ),
    ),
    says=lambda rows: "Milliseconds a step.",
)

SWEEP = Claim(
    "One step of every kind of output layer, from 10⁴ to 10⁶ classes",
    "d = 64, 64 examples, one target each, two cores: the picture on the first page. `exact` and `dense` have the "
    "squared error and SGD, the others their own loss and Adam.",
    "widehead bench output-layer --classes 10000,30000,100000,300000,1000000 --width 64 --batch 64 --methods "
    "exact,dense,full,retrieved,sampled,adaptive,noise-contrastive --plot steps.png",
    (Pivot("benchmarks/results/time-against-classes.jsonl", METHOD, CLASSES, MS, {"kernels": True}),),
    says=lambda rows: (
        "Milliseconds a step. Noise-contrastive estimation with 100 negatives takes less than twice the exact step."
    ),
)

FEW = Claim(
    "Few classes: dense is faster",
    "One target, 128 examples, one thread, squared error and SGD on both sides. Below 1 the exact head is the slower "
    "one. The machine was busy; the methods took turns.",
    "OMP_NUM_THREADS=1 widehead bench output-layer --classes 512,1024,2048,4096,8192,16384,32768 --width 256 "
    "--batch 128 --methods exact,dense,dense-cross-entropy\n"
    "OMP_NUM_THREADS=1 widehead bench output-layer --classes 64,128,256,512,1024,4096,16384 --width 64 --batch 128 "
    "--methods exact,dense,dense-cross-entropy",
    (
        Pivot(
            "benchmarks/results/few-classes.jsonl",
            CLASSES,
            Column("d =", "width", 1, "d"),
            Column("times", "ratio_to_dense", 1, ".1f"),
            {"method": "exact"},
        ),
    ),
    says=lambda rows: "How many times faster than dense the exact step is:",
)

MANY = Claim(
    "Many targets an example",
    "The sizes of the demo: 102,428 outputs, 67 uniform targets an example, so that 29,000 rows are read and written "
    "in a step; a quiet machine. `make demo` prints 32 to 35: it makes the same steps in the process that trained, "
    "where freed memory serves again, so that the dense one takes 865 ms (AMD) and 430 ms (Intel).",
    "widehead bench output-layer --classes 102428 --width 256 --batch 512 --targets 67 --methods "
    "exact,exact-newton,exact-momentum,dense",
    (
        Table(
            "benchmarks/results/many-targets.jsonl",
            (METHOD, Column("times faster than dense", "ratio_to_dense", 1, ".1f"), MS),
            {},
        ),
    ),
)

OPTIMISERS = Claim(
    "Steps of other optimisers",
    "The sizes of the first section. Optimisers in float64 have no compiled kernels.",
    "widehead bench output-layer --classes 793471 --width 300 --batch 128 --methods "
    "exact,exact-momentum,exact-newton,exact-shampoo,exact-muon",
    (
        Table(
            "benchmarks/results/output-layer.jsonl",
            (METHOD, Column("in steps of SGD", "ratio_to_exact", 1, ".1f"), MS),
            {**PAPER, "date": "2026-11-27T22:49:08+00:00"},
        ),
    ),
)

DIRECT = Claim(
    "A step without autograd",
    "The sizes of the first section. `head.loss_and_gradient` stands for forward and backward; the numbers are the "
    "same to the last bit. The machine was busy (load 24): with two threads "
    "autograd's copy of the gradient of a leaf is made by both, which costs much there; the methods took turns.",
    "widehead bench output-layer --classes 793471 --width 300 --batch 128 --methods exact,exact-without-autograd",
    (
        Table(
            "benchmarks/results/output-layer.jsonl",
            (METHOD, Column("threads", "threads", 1, "d"), MS, Column("in ordinary steps", "ratio_to_exact", 1, ".2f")),
            {**PAPER, "date": ("2026-11-28T01:03:50+00:00", "2026-11-28T01:04:25+00:00")},
        ),
    ),
)

_SIZES = (
    Column("D", "classes", 1, ",d"),
    Column("d", "width", 1, "d"),
    Column("m", "batch", 1, ",d"),
    Column("K", "targets_per_example", 1, "d"),
    Column("optimiser", "optimizer"),
    Column("before, ms", "before_mean", 1e3, ".1f"),
    Column("now, ms", "now_mean", 1e3, ".1f"),
    Column("times", "times", 1, ".2f"),
)

BEFORE = Claim(
    "Many targets and large batches, beside an older commit",
    "Nine sizes of recommenders and labels, squared error, targets by 1/rank^0.8, two threads; means of steps of "
    "commit 2fb81e6 and of a newer one, which took turns, one process each. The first two tables are of machines that "
    "had nothing else to do, an older processor and one with AVX-512. In the third, on the older one, two programs "
    "that only count had the same priority, and others ran behind them.",
    "python recipes/before_and_now.py ../before --rounds 5\n"
    "python recipes/before_and_now.py ../before --busy 2 --seconds 1.5",
    (
        Table("recipes/results/before-and-now.jsonl", _SIZES, {"busy": 0, "device": "AMD EPYC"}),
        Table("recipes/results/before-and-now.jsonl", _SIZES, {"busy": 0, "device": "Intel(R) Xeon(R) Processor"}),
        Table("recipes/results/before-and-now.jsonl", _SIZES, {"busy": 2}),
    ),
    says=lambda rows: (
        f"{geometric_mean(row['times'] for row in rows):.2f} times faster in the geometric mean of the first."
    ),
)

HEADS_ALONE = Claim(
    "Steps of the other output layers",
    "Random data, one target an example, uniform: that is the worst case of the hierarchical head, as real targets "
    "are frequent classes mostly. Medians; every 200 steps the retrieved head renews its index too, which took 2 s at "
    "a million classes. Logged on 2026-11-22 (log of benchmarks).",
    "widehead bench output-layer --classes 33278 --width 256 --batch 256 "
    "--methods full,retrieved,sampled,hierarchical,adaptive,noise-contrastive,blackout,exact\n"
    "widehead bench output-layer --classes 1000000 --width 64 --batch 64 "
    "--methods full,retrieved,sampled,hierarchical,noise-contrastive,blackout",
    (
        Pivot("benchmarks/results/heads.jsonl", METHOD, CLASSES, MS, {}),
        Pivot("benchmarks/results/heads.jsonl", METHOD, CLASSES, Column("", "ratio_to_full", 1, ",.1f"), {}),
    ),
    says=lambda rows: (
        "Milliseconds a step (first table), and how many times faster than the full softmax that is (second)."
    ),
)

PAPER_TABLE = Claim(
    "The table of the paper",
    "The network of Vincent et al. 2015: nine words in, two hidden layers, 793,471 words out. They published 763 "
    "times for the output layer alone on a CPU.",
    "widehead bench paper-table",
    (
        Table(
            "benchmarks/results/paper-table.jsonl",
            (
                Column("training step of", "part"),
                Column("times faster than dense", "speedup", 1, ",.0f"),
                Column("dense, ms", "dense_seconds", 1e3, ",.0f"),
                Column("exact, ms", "exact_seconds", 1e3, ".2f"),
            ),
            {"kernels": True},
        ),
    ),
)

UPKEEP = Claim(
    "What it costs to keep rows up to date",
    "20,000 steps at 1,000,000 classes, d = 64, 128 examples, targets by Zipf's law. SGD at a tenth of the largest "
    "stable learning rate and at half of it, which is the worst case: nearly every step contracts one direction to "
    "nothing.",
    "widehead bench upkeep --optimizer newton",
    (
        Table(
            "benchmarks/results/upkeep.jsonl",
            (
                Column("optimiser", "optimizer"),
                Column("lr", "lr", 1, ".4f"),
                Column("share of the time", "upkeep_share", 100, ".1f", " %"),
                Column("median step, ms", "seconds", 1e3, ".2f"),
                Column("99.9th percentile, in medians", "p999_in_medians", 1, ".1f"),
                Column("longest, in medians", "max_in_medians", 1, ".1f"),
            ),
            {"kernels": True},
        ),
    ),
)

PASS = Claim(
    "One pass of gowalla",
    "29,858 users, 40,981 items, d = 512, 1,024 examples a batch, Newton, encoder trained.",
    "python recipes/profile_gowalla.py FOLDER",
    (
        Table(
            "recipes/results/profile-gowalla.jsonl",
            (Column("seconds a pass", "seconds_a_pass", 1, ".2f"), Column("steps", "steps")),
            {"head_optimizer": "newton", "commit": ("32637d0-dirty", "40c569b", "f12ba1c", "8a24549")},
        ),
    ),
    noted="Machines differ from day to day. At the time of the first line a pass took 3.27 s with compiled kernels, "
    "which was not stored (benchmarks/LOG.md, 2026-11-23). At that of the second, commit 2fb81e6 took 3.96 to 5.35 s "
    "(benchmarks/LOG.md, 2026-11-28). The last two are of a processor with AVX-512, before and after targets were "
    "sorted and rows of embeddings moved another way (benchmarks/LOG.md, 2026-11-29).",
)

READING = Claim(
    "Reading three million pairs, beside polars",
    "CSV rows such as u17,i3 of 300,000 users and 100,000 items, one thread of numpy's, two of polars'; medians of "
    "three rounds in turns. Users and items must become codes with a list of names. Polars alone takes twice as long "
    "for these as the whole matrix of users and items takes, and a fifth of it for the strings.",
    "OMP_NUM_THREADS=1 python recipes/reading.py --rounds 3",
    (
        Table(
            "recipes/results/reading.jsonl",
            (Column("way", "way"), Column("seconds", "seconds", 1, ".2f"), Column("seconds of CPU", "cpu", 1, ".2f")),
            {},
        ),
    ),
)

GPT2 = Claim(
    "One step of GPT-2 with 200,000 words",
    "GPT-2 of transformers with random weights, layers of width 256; a step is forward, backward and optimisers. The "
    "dense model has AdamW; the others the sampled softmax with 2,000 negatives or the exact head, put in by "
    "`swap_head`, with dense or sparse gradients of the word vectors (AdamW or RowAdam). The steps took turns.",
    "python recipes/gpt2.py\npython recipes/gpt2.py --layers 2 --batch 4 --length 32",
    (
        Table(
            "recipes/results/gpt2.jsonl",
            (
                Column("layers", "layers"),
                Column("texts a batch", "batch"),
                Column("words a text", "length"),
                Column("dense, s", "seconds_a_step.dense", 1, ".2f"),
                Column("sampled softmax", "seconds_a_step.head", 1, ".2f"),
                Column("with sparse word vectors", "seconds_a_step.head and rows", 1, ".3f"),
                Column("exact head with sparse word vectors", "seconds_a_step.exact", 1, ".3f"),
            ),
            {"words": 200_000},
        ),
    ),
)
