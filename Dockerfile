# syntax=docker/dockerfile:1
# The sidecar with the MongoDB MCP server inside, as its child process. Build from the repository's root.
#
# Tags name a line of the base images, so a rebuild takes security fixes in. Digests could not be looked up where this
# file was written; pin them where you build: --build-arg PYTHON_IMAGE=python@sha256:… --build-arg NODE_IMAGE=node@sha256:…
# --build-arg OPA_IMAGE=openpolicyagent/opa@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG NODE_IMAGE=node:22-bookworm-slim
ARG OPA_IMAGE=openpolicyagent/opa:1.22.4-static

FROM ${OPA_IMAGE} AS opa

FROM ${NODE_IMAGE} AS mcp-server
WORKDIR /opt/mcp-server
COPY parts/package.json parts/package-lock.json parts/.npmrc ./
# Without the bundler and the JavaScript runtime that one of its packages names as optional: half of the size, never used.
# The build prints what is left.
RUN npm ci --omit=dev --no-progress \
 && rm -rf node_modules/@oven node_modules/@rollup \
 && du -sh node_modules

# For Compose only (`--target authorization-server`): nothing of it is in the sidecar's image.
FROM ${NODE_IMAGE} AS authorization-server
WORKDIR /opt/authorization-server
COPY parts/authorization-server ./
RUN npm ci --omit=dev --no-progress
USER 10001:10001
EXPOSE 9000
ENTRYPOINT ["node", "main.js"]

FROM ${PYTHON_IMAGE} AS environment
WORKDIR /build
COPY parts/uv-bootstrap.lock parts/build.lock parts/
RUN pip install --no-cache-dir --only-binary :all: --no-deps --require-hashes -r parts/uv-bootstrap.lock
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN uv venv /opt/sidecar
COPY deploy/requirements.lock deploy/
RUN uv pip sync --no-cache --python /opt/sidecar/bin/python --require-hashes deploy/requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY parts/*.json parts/.npmrc parts/*.lock parts/
COPY parts/authorization-server parts/authorization-server
COPY policies policies
COPY sidecar sidecar
RUN uv pip install --no-cache --python /opt/sidecar/bin/python --no-deps --build-constraints parts/build.lock .

FROM ${PYTHON_IMAGE}
# The server's launcher looks for node on the system's own PATH, which is all that a child of the sidecar is given.
COPY --from=mcp-server /usr/local/bin/node /usr/local/bin/node
COPY --from=mcp-server /opt/mcp-server /opt/mcp-server
# For the managed OPA, which is the sidecar's own child.
COPY --from=opa /opa /usr/local/bin/opa
COPY --from=environment /opt/sidecar /opt/sidecar
RUN ln -s /opt/mcp-server/node_modules/.bin/mongodb-mcp-server /usr/local/bin/mongodb-mcp-server \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/sidecar
ENV PATH=/opt/sidecar/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /var/lib/sidecar
USER 10001:10001
# To be reached from outside the container, `listen` must not be a loopback address; then the settings must say who ends TLS
# (tls_ended_by).
EXPOSE 8080
# Of admin_listen where the settings leave it; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8081/readyz', timeout=2)"]
ENTRYPOINT ["mcp-sidecar"]
CMD ["serve"]
