"""The generator under treatment: the only place that knows diffusers classes and what a network predicts.

`load` makes a `Model`, `sample` draws with it, `export` writes it as a plain diffusers folder. Submodules hold the
rest: denoiser (x0 = f(x, t, cond)), families, layers, hashing, tiny (fakes for tests). Nothing heavy is imported here.
"""
