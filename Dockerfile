# heim-proxy, heim-controller, heim-agent and heim-tunnel in one image, for linux/amd64 and linux/arm64:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag registry.example.com/heim:0.1.0 --push .
#
# It runs as nobody in particular (65532), on a read-only root, without capabilities: what is written goes to
# /var/lib/heim (state), /run/heim (in memory: keys that serve) and /tmp. Say which program:
#
#   docker run --read-only --tmpfs /tmp --tmpfs /run/heim:uid=65532,mode=0700 \
#     -v heim-state:/var/lib/heim -v ./heim.yaml:/etc/heim/heim.yaml:ro -p 443:8443 \
#     registry.example.com/heim:0.1.0 heim-proxy run --config /etc/heim/heim.yaml
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proxy proxy
COPY agent agent
COPY tunnel-cli tunnel-cli
COPY controller controller
# Wheels only: nothing of a dependency is run while it is installed, and no compiler is needed on either
# architecture. Compiled here, because nothing can be written beside the sources later.
RUN python -m venv --without-pip /opt/heim \
    && pip --python /opt/heim/bin/python install --no-cache-dir --only-binary :all: -c constraints.txt '.[all]' \
    && /opt/heim/bin/python -m compileall -q -j 0 /opt/heim/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Heim" \
      org.opencontainers.image.description="Single sign-on, policy and TCP tunnels in front of everything you run" \
      org.opencontainers.image.licenses="MIT"
# A name for the number, a place for state; and nothing left that installs packages.
RUN groupadd --gid 65532 heim \
    && useradd --uid 65532 --gid 65532 --home-dir /var/lib/heim --no-create-home --shell /usr/sbin/nologin heim \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/heim /run/heim \
    && pip uninstall --yes --root-user-action ignore pip
COPY --from=build /opt/heim /opt/heim
ENV PATH=/opt/heim/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_RUNTIME_DIR=/run/heim
USER 65532:65532
WORKDIR /var/lib/heim
EXPOSE 8443 8080 9440
# The admin listener answers /livez and /readyz; whoever runs the container asks it.
HEALTHCHECK NONE
CMD ["heim-proxy", "--help"]
