"""What every package of gpuzip stands on: matrices, checks, planes, threads, devices."""
