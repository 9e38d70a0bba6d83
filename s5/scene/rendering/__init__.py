"""Scene -> samples: plan, rooms, motion, and the renderers on the CPU and on the training device."""
