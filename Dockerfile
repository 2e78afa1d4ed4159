# Two images: `--target service` and `--target worker`. Same dependencies, from the lock, by their hashes.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY curation curation
COPY curation_cli curation_cli
COPY curation_client curation_client
COPY curation_service curation_service
COPY enrichment_worker enrichment_worker
COPY shared shared
COPY workflows workflows
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /venv/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON_IMAGE} AS base
RUN useradd --system --uid 10001 --no-create-home curation
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CURATION_LOG_FORMAT=json
USER curation
STOPSIGNAL SIGTERM

FROM base AS worker
CMD ["python", "-m", "enrichment_worker"]

FROM base AS service
EXPOSE 50051
CMD ["python", "-m", "curation_service"]
