"""Alerts by mail, against servers that take it, refuse it, put it off, or never come to a point."""

from __future__ import annotations

import smtplib
import socket
import threading
import time
from dataclasses import replace

import pytest
from aiosmtpd.controller import Controller

from lightning_gradguard.alerts import Alert, Alerts, Email
from lightning_gradguard.alerts.base import PartialError, RefusedError
from lightning_gradguard.findings import Severity
from tests.alert_servers import certificate, dripping, refusing
from tests.strategies import make_finding

ALERT = Alert(
    kind="exploding",
    state="opened",
    severity=Severity.CRITICAL,
    message="norm 1e9",
    layers=("net.0",),
    id="a1",
)


class Mailbox:
    """Keeps what it is sent."""

    def __init__(self, answer="250 OK", *, refused=None, at_quit="221 Bye"):
        self.answer, self.refused, self.at_quit = answer, dict(refused or {}), at_quit
        self.mails = []

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802 - as below
        answers = self.refused.get(address, [])
        answer = answers.pop(0) if answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_QUIT(self, _server, _session, _envelope):  # noqa: N802 - as below
        return self.at_quit

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - aiosmtpd's
        if self.answer.startswith("250"):
            self.mails.append(envelope)
        return self.answer


@pytest.fixture
def mail():
    """Run an SMTP server."""
    started = []

    def run(box, **options):
        port = int(refusing().split(":")[2].split("/")[0])
        controller = Controller(box, hostname="127.0.0.1", port=port, **options)
        controller.start()
        started.append(controller)
        return port

    yield run
    for controller in started:
        controller.stop()


def email(port, **options):
    more = {"tls": "none", "timeout_seconds": 1.0, **options}
    to = more.pop("to", "me@example.org")
    return Email(to, sender="run@example.org", host="127.0.0.1", port=port, **more)


def test_a_mail_has_a_subject_and_a_text(mail):
    box = Mailbox()
    email(mail(box)).send(ALERT)
    (envelope,) = box.mails
    assert envelope.rcpt_tos == ["me@example.org"]
    assert b"Subject: [CRITICAL] exploding in net.0" in envelope.content
    assert b"norm 1e9" in envelope.content


def test_a_mail_that_is_refused_for_good_is_not_tried_again(mail):
    with pytest.raises(RefusedError, match="554"):
        email(mail(Mailbox("554 no"))).send(ALERT)


def test_a_mail_that_may_be_taken_later_is_tried_again(mail):
    with pytest.raises(Exception, match="451"):
        email(mail(Mailbox("451 later"))).send(ALERT)


def test_mail_goes_to_no_server_whose_certificate_nobody_signed(mail, tmp_path):
    box = Mailbox()
    port = mail(box, tls_context=certificate(tmp_path))
    with pytest.raises(OSError, match="CERTIFICATE"):
        email(port, tls="starttls").send(ALERT)
    assert box.mails == []


def test_a_password_never_goes_over_a_connection_in_clear():
    with pytest.raises(ValueError, match="in clear"):
        email(25, user="me")


def test_names_from_a_model_add_no_line_to_a_mail(mail):
    box = Mailbox()
    hostile = "a\r\nBcc: x@example.org\r\n\r\nbody"
    alert = Alert(kind="k", state="opened", severity=Severity.ERROR, message="m", layers=(hostile,))
    email(mail(box)).send(alert)
    head = box.mails[0].content.split(b"\r\n\r\n")[0]
    assert b"\nBcc:" not in head


THREE = ["a@example.org", "b@example.org", "c@example.org"]


def reached(box):
    return [address for envelope in box.mails for address in envelope.rcpt_tos]


def test_one_who_is_refused_is_told_of_and_the_others_get_their_mail(mail):
    box = Mailbox(refused={THREE[1]: ["550 unknown"]})
    with pytest.raises(PartialError, match="address 2 of 3: answered 550") as error:
        email(mail(box), to=THREE).send(ALERT)
    assert reached(box) == [THREE[0], THREE[2]]
    assert "@" not in str(error.value)


def test_those_who_are_put_off_are_tried_again_and_nobody_gets_it_twice(mail):
    box = Mailbox(refused={THREE[1]: ["450 later"], THREE[2]: ["550 unknown"]})
    channel = email(mail(box), to=THREE)
    with pytest.raises(OSError, match="address 2 of 3: answered 450"):
        channel.send(ALERT)
    with pytest.raises(PartialError, match="address 3 of 3: answered 550"):
        channel.send(ALERT)
    assert reached(box) == [THREE[0], THREE[1]]
    channel.send(replace(ALERT, id="a2"))
    assert reached(box)[2:] == THREE


def test_where_all_are_refused_nobody_is_tried_again(mail):
    channel = email(mail(Mailbox(refused={one: ["550 no"] for one in THREE})), to=THREE)
    with pytest.raises(RefusedError, match="address 1 of 3: answered 550"):
        channel.send(ALERT)


def test_where_all_are_put_off_all_are_tried_again(mail):
    box = Mailbox(refused={one: ["450 later"] for one in THREE})
    channel = email(mail(box), to=THREE)
    with pytest.raises(OSError, match="answered 450"):
        channel.send(ALERT)
    channel.send(ALERT)
    assert reached(box) == THREE


def test_what_is_refused_stands_in_the_summary_and_nothing_is_lost(mail):
    box = Mailbox(refused={THREE[0]: ["550 unknown"]})
    desk = Alerts(email(mail(box), to=THREE)).open("run")
    desk.put(make_finding(episode_id=1))
    desk.close(10.0)
    assert desk.troubles == ("alerts by Email: PartialError: address 1 of 3: answered 550",)
    assert reached(box) == THREE[1:]


@pytest.mark.parametrize("answer", ["421 going", "500 what", "250 fine"])
def test_what_a_server_says_at_the_end_of_a_mail_that_it_took_is_no_failure(answer, mail):
    box = Mailbox(at_quit=answer)
    email(mail(box)).send(ALERT)
    assert len(box.mails) == 1


@pytest.mark.parametrize("tls", ["none", "starttls", "tls"])
def test_a_greeting_byte_by_byte_is_cut_off(tls):
    with dripping() as (port, _):
        start = time.monotonic()
        with pytest.raises(OSError, match=r"\w"):
            email(port, tls=tls, timeout_seconds=0.4).send(ALERT)
        assert time.monotonic() - start < 3.0


def test_a_greeting_byte_by_byte_is_cut_off_also_if_it_comes_late(monkeypatch):
    real = socket.create_connection

    def late(*args, **more):
        time.sleep(2.0)  # as a name server that takes its time
        return real(*args, **more)

    monkeypatch.setattr(socket, "create_connection", late)
    with dripping() as (port, _):
        start = time.monotonic()
        with pytest.raises((OSError, smtplib.SMTPException)):
            email(port, timeout_seconds=0.4).send(ALERT)
        assert 2.0 < time.monotonic() - start < 5.0


def test_a_name_server_that_hangs_holds_up_neither_the_end_nor_the_others(monkeypatch):
    hangs, got = threading.Event(), []
    real = socket.getaddrinfo

    def look_up(host, *args, **more):
        if host == "mail.hangs.example":
            hangs.wait(30.0)
        return real(host, *args, **more)

    class Mine:
        def send(self, alert):
            got.append(alert.kind)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hanging = Email(
        "me@example.org", sender="run@example.org", host="mail.hangs.example", tls="none"
    )
    desk = Alerts([hanging, Mine()]).open("run")
    desk.put(make_finding(episode_id=1))
    start = time.monotonic()
    desk.close(1.5)
    assert time.monotonic() - start < 2.5
    assert got == ["vanishing"]
    assert desk.troubles == ("alerts by Email: 0 lost, 1 not sent",)
    hangs.set()
