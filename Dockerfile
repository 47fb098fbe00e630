# The service, and (target `trainer`) the bundled worker. Built in one stage, run in another that has no compiler and no pip.
FROM python:3.12-slim-bookworm AS source
WORKDIR /src
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY packing packing
COPY service service
COPY synth synth
COPY training training
RUN python -m venv /opt/longweave

FROM source AS service-build
RUN /opt/longweave/bin/pip install --no-cache-dir --constraint constraints.txt '.[service]'

FROM source AS trainer-build
RUN /opt/longweave/bin/pip install --no-cache-dir --constraint constraints.txt '.[train]'

FROM python:3.12-slim-bookworm AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin longweave \
    && install -d -o 10001 -g 10001 /data
ENV PATH=/opt/longweave/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp LONGWEAVE_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data

FROM base AS trainer
COPY --from=trainer-build /opt/longweave /opt/longweave
ENTRYPOINT ["python", "-m", "training"]

FROM base AS service
COPY --from=service-build /opt/longweave /opt/longweave
ENTRYPOINT ["longweave"]
CMD ["api", "--host", "0.0.0.0"]
