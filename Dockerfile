# docker build -t generalist-bench:cpu .
# Another base, such as one with CUDA and torch in it: --build-arg BASE=pytorch/pytorch:2.7.1-cuda12.6-cudnn9-runtime
ARG BASE=python:3.11-slim
FROM ${BASE}

# Where pip finds torch beside PyPI, unless the base has it: builds for CPUs, a tenth of the others' size.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Optional extras, such as [wandb,hub].
ARG EXTRAS=

COPY . /usr/src/generalist-bench
RUN python3 -m venv --system-site-packages /opt/venv \
  && /opt/venv/bin/pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" "/usr/src/generalist-bench${EXTRAS}" \
  && rm -r /usr/src/generalist-bench

# The home folder is for caches; it can be written by whichever user the container runs as.
ENV PATH="/opt/venv/bin:${PATH}" HOME=/tmp GENERALIST_BENCH_DATA=/data
WORKDIR /work
ENTRYPOINT ["generalist-bench"]
CMD ["--help"]
