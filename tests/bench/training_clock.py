"""The CT segmentation train with a clock about its training: rides in the image of `bench_sandbox_training`, the same on both sides.

The work is the shipped ClientApp's own. What is read around it goes into the reply as metrics whose names begin with `clock_`: seconds of the
round as the process lived them, processor time of all its threads by the kernel's count, page faults, switches, and the time of each step but
the first. On a GPU a step's moment is when its work was handed over; the round ends with numbers that are back on the processor.
"""

import itertools
import os
import resource
import time

import torch
from flwr.app import Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from torch.optim.optimizer import register_optimizer_step_post_hook

from algorithms.clientapp.weights import device
from algorithms.ct_segmentation import client_app as shipped

app = ClientApp()


@app.train()
def clocked(message: Message, context: Context) -> Message:
    """Train as shipped, and say what it took."""
    steps: list[float] = []
    noting = register_optimizer_step_post_hook(lambda *_: steps.append(time.perf_counter()))
    try:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        reply: Message = shipped.train_round(message, context)
        ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    finally:
        noting.remove()
    reply.content["clock"] = MetricRecord(
        {
            "clock_seconds": ended - began,
            "clock_user_s": after.ru_utime - before.ru_utime,
            "clock_system_s": after.ru_stime - before.ru_stime,
            "clock_faults": after.ru_minflt - before.ru_minflt,
            "clock_switches": after.ru_nivcsw - before.ru_nivcsw,
            "clock_steps_s": [later - earlier for earlier, later in itertools.pairwise(steps)],
            "clock_threads": torch.get_num_threads(),
            "clock_processors": len(os.sched_getaffinity(0)),
            "clock_on_gpu": int(device().type == "cuda"),
        }
    )
    return reply
