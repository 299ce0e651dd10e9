"""AWS as others have written it: moto's server, boto3 that reads back, botocore that signs.

    python aws.py serve                                  prints the endpoint, serves until it is ended
    python aws.py read ENDPOINT GROUP                    prints a log group as JSON
    python aws.py sign ID SECRET TOKEN SECONDS FILE      prints the Authorization of each body in FILE, every second one with the token
"""

import datetime
import json
import sys


def serve():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def read(endpoint, group):
    import boto3

    client = boto3.client(
        "logs",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="reader",
        aws_secret_access_key="reader",
    )
    found = client.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]
    streams = {}
    for stream in client.describe_log_streams(logGroupName=group)["logStreams"]:
        name = stream["logStreamName"]
        events = client.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)["events"]
        streams[name] = [event["message"] for event in events]
    tags = client.list_tags_log_group(logGroupName=group)["tags"]
    print(json.dumps({"retention": found.get("retentionInDays"), "tags": tags, "streams": streams}))


def sign(key_id, secret, token, seconds, file):
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    at = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    # Whichever clock this version of botocore asks.
    if hasattr(botocore.auth, "get_current_datetime"):
        botocore.auth.get_current_datetime = lambda *_, **__: at.replace(tzinfo=None)

    class Clock(datetime.datetime):
        @classmethod
        def utcnow(cls):
            return at.replace(tzinfo=None)

        @classmethod
        def now(cls, tz=None):
            return at

    botocore.auth.datetime = type("module", (), {"datetime": Clock, "timezone": datetime.timezone})
    with open(file, encoding="utf-8") as opened:
        bodies = json.load(opened)
    signatures = []
    for index, body in enumerate(bodies):
        request = AWSRequest(
            method="POST",
            url="https://logs.us-east-1.amazonaws.com/",
            data=body.encode(),
            headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs_20140328.PutLogEvents"},
        )
        credentials = Credentials(key_id, secret, token if index % 2 else None)
        botocore.auth.SigV4Auth(credentials, "logs", "us-east-1").add_auth(request)
        signatures.append(request.headers["Authorization"])
    print(json.dumps(signatures))


if __name__ == "__main__":
    {"serve": serve, "read": read, "sign": sign}[sys.argv[1]](*sys.argv[2:])
