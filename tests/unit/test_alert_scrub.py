"""Secrets are taken out of texts in every form, and ordinary words stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_gradguard.alerts.scrub import scrubber

ADDRESS = "https://me:passw0rd@h.example/services/T0123456?token=abcdefgh"
SLACK = "https://hooks.slack.com/services/T00000000/B11111111/aBcDeFgHiJkLmNoPqRsTuVwX"


@pytest.mark.parametrize("leak", [ADDRESS, "/services/T0123456", "abcdefgh", "passw0rd"])
def test_no_part_of_an_address_is_left_in_a_text(leak):
    found = scrubber([ADDRESS])(f"no answer from {leak}!")
    for part in ("passw0rd", "T0123456", "abcdefgh"):
        assert part not in found


@pytest.mark.parametrize("leak", ["s3cr3t!tok3n", "s3cr3t%21tok3n"])
@pytest.mark.parametrize("address", ["https://h.example/s3cr3t%21tok3n/x", "s3cr3t!tok3n"])
def test_a_token_is_hidden_in_either_of_its_forms(leak, address):
    assert leak not in scrubber([address])(f"got {leak}.")


@pytest.mark.parametrize(
    "address",
    [
        SLACK,
        "https://example.com/hooks/incoming/abc123def456",
        "https://hc-ping.com/550e8400-e29b-41d4-a716-446655440000",
        "https://discord.com/api/webhooks/1234567890/aBcDeFgHiJkLmNoPqRsTuVwX",
    ],
)
def test_words_that_stand_in_an_address_stay_in_a_text(address):
    text = (
        "https: the hooks of services.slack.com, webhooks of the api, example com, incoming, "
        "discord, services and ping are ordinary words"
    )
    assert scrubber([address])(text) == text


@pytest.mark.parametrize(
    ("address", "token"),
    [
        (SLACK, "aBcDeFgHiJkLmNoPqRsTuVwX"),
        (SLACK, "T00000000"),
        ("tgram://123456789:aaBBccDDee_ff/42424242/", "aaBBccDDee_ff"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general", "T1JJ3T3L2"),
        ("https://eo1x2y3z4.m.example.net/", "eo1x2y3z4"),
        ("https://h.example/p?key=sh0rtish&x=1", "sh0rtish"),
        ("https://h.example/aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("https://h.example/v.A1b2C3.D4e5F6/x", "A1b2C3"),
    ],
)
def test_a_token_is_hidden_wherever_it_stands_also_within_a_word(address, token):
    assert scrubber([address])(f"x{token}y {token}") == "x***y ***"


@pytest.mark.parametrize("password", ["x", "ab", "tr0", "hunter", "correcthorse", "a b", "p@ss/w"])
def test_a_password_is_hidden_whatever_its_length_but_not_within_words(password):
    scrub = scrubber([password])
    assert scrub(f"535 no {password}: go") == "535 no ***: go"
    assert scrub("exabyte hunters, tr00") == "exabyte hunters, tr00"


@pytest.mark.parametrize("password", ["x", "ab", "hunter2"])
def test_a_password_in_an_address_is_hidden_whatever_its_length(password):
    scrub = scrubber([f"mailto://me:{password}@h.example/inbox"])
    for text in (f"me:{password}@h.example", f"bad login {password}", f"me%3A{password}%40h"):
        assert password not in scrub(text).replace("example", "").split("***")


def test_a_short_value_is_hidden_where_it_stands_as_in_the_address():
    scrub = scrubber(["https://h.example/push?pin=4711&to=5"])
    assert scrub("GET /push?pin=4711&to=5") == "GET ***"
    assert scrub("GET https://h.example/push?pin=4711&to=5") == "GET ***"
    assert scrub("bad pin=4711") == "bad ***"
    assert scrub("after 5 of 4711 steps") == "after 5 of 4711 steps"


def test_a_topic_that_is_a_word_is_hidden_with_its_path_only():
    scrub = scrubber(["https://ntfy.example/training"])
    assert scrub("POST /training") == "POST ***"
    assert scrub("ntfy.example/training") == "***"
    assert scrub("training goes on") == "training goes on"


secrets = st.one_of(
    st.text(min_size=1, max_size=40),
    st.builds("https://{}:{}@{}/{}?{}={}".format, *[st.text(max_size=12)] * 6),
)


@given(st.lists(secrets, max_size=3), st.text(max_size=50), st.text(max_size=50))
def test_whatever_a_secret_is_it_is_not_left_whole_between_spaces(secrets, before, after):
    scrub = scrubber(secrets)
    for secret in secrets:
        assert f" {secret} " not in scrub(f"{before} {secret} {after}") or secret in {"*", "***"}
