# The relay in a container (docs/docker.md):  docker build -t relay .

FROM debian:trixie-slim AS python
# tini is process 1: it passes signals on, and waits for processes that have lost their parent.
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 tini ca-certificates \
 && rm -rf /var/lib/apt/lists/*

FROM python AS packages
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
# Before the code: a change of the code does not install the packages again.
COPY requirements.txt requirements-outbox.txt requirements-redis.txt /opt/relay/
RUN python3 -m venv /opt/relay/.venv \
 && /opt/relay/.venv/bin/pip install -q --no-cache-dir -r /opt/relay/requirements.txt -r /opt/relay/requirements-outbox.txt -r /opt/relay/requirements-redis.txt \
 && /opt/relay/.venv/bin/pip uninstall -q -y pip

FROM python
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/relay --shell /usr/sbin/nologin relay \
 && install -d -o relay -g relay -m 700 /var/lib/relay \
 && printf '#!/bin/sh\nexec /opt/relay/.venv/bin/python /opt/relay/relay.py "$@"\n' >/usr/local/bin/relay \
 && chmod 755 /usr/local/bin/relay
COPY --from=packages /opt/relay/.venv /opt/relay/.venv
COPY requirements.txt requirements-outbox.txt requirements-redis.txt relay.py README.md CHANGELOG.md /opt/relay/
COPY deploy /opt/relay/deploy
COPY docs /opt/relay/docs
COPY static /opt/relay/static
COPY templates /opt/relay/templates
COPY pushrelay /opt/relay/pushrelay
# The relay's user may not write here, so every start would compile the code again.
RUN /opt/relay/.venv/bin/python -m compileall -q /opt/relay/pushrelay

# Settings: mount your own file here, or set RELAY_NAME in the environment, which overrides the file.
COPY deploy/container.ini /etc/relay.ini
ENV RELAY_CONFIG=/etc/relay.ini

# A number, so that Kubernetes can see that this is not root.
USER 10001:10001
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["relay", "health"]
ENTRYPOINT ["tini", "--", "relay"]
CMD []
