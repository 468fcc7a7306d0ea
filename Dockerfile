# amends with the example of the orders. docs/deploy.md says how to use it, and how to build an image of your own on it.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/amends
# the dependencies first: they change less often than the code
COPY deploy/requirements.txt deploy/requirements.txt
RUN pip --python /opt/amends/bin/python install --no-cache-dir --require-hashes -r deploy/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY contracts contracts
COPY brokers brokers
COPY participants participants
COPY choreography choreography
COPY coordinator coordinator
COPY examples examples
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN pip --python /opt/amends/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13-slim-bookworm
# a volume that is mounted at /var/lib/orders the first time gets this owner
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/amends amends \
    && install --directory --owner=amends --group=amends /var/lib/orders
COPY --from=build /opt/amends /opt/amends
ENV PATH=/opt/amends/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORDERS_HOME=/var/lib/orders
USER amends
WORKDIR /var/lib/amends
ENTRYPOINT ["amends"]
CMD ["--help"]
