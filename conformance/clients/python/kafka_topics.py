"""Topics of a Kafka as librdkafka sees them: `kafka_topics.py BROKER make|read|write …` prints JSON.

  make TOPIC PARTITIONS [name=value …]    makes a topic with these settings
  read TOPIC COUNT                        prints so many messages, or fewer if no more come within 30 s
  write TOPIC KEY                         writes an empty message where Kafka's own clients put this key; prints its partition
"""

import json
import sys
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

broker, action, topic, *rest = sys.argv[1:]

if action == "make":
    settings = dict(pair.split("=", 1) for pair in rest[1:])
    admin = AdminClient({"bootstrap.servers": broker})
    new = NewTopic(topic, num_partitions=int(rest[0]), replication_factor=1, config=settings)
    admin.create_topics([new])[topic].result(30)
    print("{}")
elif action == "read":
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": topic, "auto.offset.reset": "earliest", "check.crcs": True}
    )
    consumer.subscribe([topic])
    found, deadline = [], time.monotonic() + 30
    while len(found) < int(rest[0]) and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is None or message.error():
            continue
        key = message.key()
        found.append(
            {
                "partition": message.partition(),
                "key": None if key is None else key.decode("latin-1"),
                "value": message.value().hex(),
                "headers": {name: value.decode() for name, value in message.headers() or []},
            }
        )
    consumer.close()
    print(json.dumps(found))
elif action == "write":
    told = []
    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2"})
    producer.produce(topic, key=rest[0], value=b"", on_delivery=lambda error, message: told.append((error, message)))
    producer.flush(30)
    error, message = told[0]
    assert error is None, error
    print(json.dumps({"partition": message.partition()}))
