# The command line on a CPU: docker build -t optimizer . && docker run --rm -v "$PWD:/work" optimizer recipe=fp16
FROM python:3.11-slim

# For an image without CUDA's libraries, name an index that has torch's CPU wheels: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL=""

# Latencies are measured under a lock in /tmp, which must be the container's own.
ENV OMP_WAIT_POLICY=PASSIVE \
    PIP_CONSTRAINT=/src/constraints.txt \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY conf conf
COPY optimizer optimizer
# PIP_CONSTRAINT pins every version.
# hadolint ignore=DL3013
RUN pip install '.[run,report,search,onnx,parquet]' && useradd --create-home --uid 1000 optimizer

USER 1000
WORKDIR /work
ENTRYPOINT ["optimizer"]
CMD ["--help"]
