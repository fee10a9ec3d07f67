"""A random walk over all that an exact head can do, beside a dense float64 twin.

    PYTHONPATH=src:tests OMP_NUM_THREADS=1 python -m support.walk --actions 20000 [--seed 0] [--walk 17] [--cached]

Walk after walk: a head of random size, loss, bias, type and storage, and random actions. There are hostile batches (one
dominant direction, zeros, equal rows, singular steps, tiny, huge and denormal numbers, no targets to all classes, sizes
about 256), several backward passes before a step, retained graphs, scaled and clipped gradients, every optimiser, and
others in the middle, lr, weight decay and momentum that change, kernels on and off for each part of a step, threads,
other threads, autocast, NaN and infinity, stale graphs, consolidate, audit, load_weight, copies, pickles and states
between any two parts, and changes of type. Each loss, each gradient by the hidden layer, W after each action, norms,
scores and preconditioners are compared, with bounds that have their reasons in bounds.py.

A failure names the seed, the walk and the last actions; `--walk` does that one again, alone. With
`--cached` heads keep the record that a GPU has.
"""
