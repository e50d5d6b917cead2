# One image for workers, the collector and the command line: docker build -t tidegate .
# Your own functions come on top (FROM tidegate, then pip install), or as a folder mounted at /app.

FROM python:3.12-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tidegate
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY native native
COPY workers workers
# What no container runs is left out: pip, tests of libraries, and the bytecode of the build's own paths.
RUN /opt/tidegate/bin/python -m pip install --no-cache-dir --disable-pip-version-check . \
 && /opt/tidegate/bin/python -m pip uninstall -q -y pip \
 && find /opt/tidegate -depth \( -name __pycache__ -o -name tests -path '*/site-packages/*/tests' \) -exec rm -rf {} + \
 && /opt/tidegate/bin/python -m compileall -q -j 0 /opt/tidegate/lib

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin tidegate \
 && mkdir -p /app /var/lib/tidegate \
 && chown tidegate /var/lib/tidegate
COPY --from=build /opt/tidegate /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_STATE_DIR=/var/lib/tidegate
USER tidegate
WORKDIR /app
ENTRYPOINT ["tidegate"]
CMD ["--help"]
