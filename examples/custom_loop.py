"""Fine-tuning with a loop of your own, from the public pieces: python examples/custom_loop.py PHOTOS"""

import sys

import jax

import jaxft
from jaxft import losses
from jaxft.augment import parse
from jaxft.metrics import classification_metrics, to_floats

data = jaxft.open_data(sys.argv[1])
assert data.val
classes = len(data.class_names)
model, params, model_state = jaxft.create_model("efficientnet_lite0", num_classes=classes, pretrained="imagenet", size=96)
mask = jaxft.make_mask(jaxft.FreezeSpec.parse("head"), params, model.stages)
steps = 40
tx, _ = jaxft.make_optimizer(params, mask, name="adamw", lr=3e-3, total_steps=steps, warmup_steps=5)
state = jaxft.create_state(params, model_state, tx, mask, rng=jax.random.key(0))

apply = jaxft.on_pixels(model.apply, model.preprocessing)
loss = losses.resolve("softmax_cross_entropy", label_smoothing=0.1)
metrics = classification_metrics(classes)
augment = parse("random_resized_crop(0.5), random_flip, random_color(0.2, 0.2, 0.2)")
prepare = lambda batch: augment.batch(batch, seed=0, size=96, classes=classes)  # but for the crop, which reading takes
train_step = jax.jit(jaxft.make_train_step(apply, loss, tx, mask, metrics=metrics, augment=prepare), donate_argnums=0)
eval_step = jax.jit(jaxft.make_eval_step(apply, loss, metrics=metrics))

batches = jaxft.train_batches(data.train, model.preprocessing, batch_size=16, seed=0, augment=augment)
for step in range(1, steps + 1):
    state, found = train_step(state, next(batches))
    if step % 20 == 0:
        print(step, to_floats(found))
batches.close()
total = metrics.empty()
for batch in jaxft.eval_batches(data.val, model.preprocessing, batch_size=32):
    found, _ = eval_step(state.params, state.model_state, batch)
    total = total.merge(found)
print("validation", to_floats(total))
