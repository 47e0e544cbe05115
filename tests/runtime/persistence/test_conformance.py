"""What every journal does, in a file as in memory: whole or refused, all of a commit or nothing, one owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.persistence import JournalError, JournalFenced, Packing, Retention, key_digest
from tests.proofs import repeated
from tests.runtime.persistence.disks import MemoryPlace, SqlitePlace, XorCipher

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.persistence import Journal

Place = MemoryPlace | SqlitePlace


@pytest.fixture(params=[MemoryPlace, SqlitePlace], ids=["memory", "sqlite"])
def place(request: Any, tmp_path: Path) -> Place:
    return request.param(tmp_path)


def entries_of(place: Place) -> list[bytes]:
    journal = place.open()
    try:
        return list(journal.replay(after=journal.snapshot()))
    finally:
        journal.close()


def fill(journal: Journal, count: int, *, begin: int = 1) -> list[bytes]:
    made = [f"entry {number}".encode() for number in range(begin, begin + count)]
    for content in made:
        journal.append(content)
        if len(content) % 2:
            journal.commit()
    journal.commit()
    return made


def test_entries_are_numbered_and_read_back_in_order(place: Place) -> None:
    journal = place.open()
    assert [journal.append(content) for content in (b"a", b"", b"\0\xff")] == [1, 2, 3]
    assert (journal.has_unwritten, journal.unwritten_size) == (True, 3)
    journal.commit()
    assert (journal.has_unwritten, journal.unwritten_size, journal.commits) == (False, 0, 1)
    journal.close()
    again = place.open()
    assert list(again.replay()) == [b"a", b"", b"\0\xff"]
    assert again.append(b"next") == 4
    again.commit()
    again.close()
    assert entries_of(place) == [b"a", b"", b"\0\xff", b"next"]


def test_a_commit_of_nothing_writes_nothing(place: Place) -> None:
    journal = place.open()
    journal.commit()
    assert journal.commits == 0
    journal.close()


def test_the_secret_is_that_of_the_journal(place: Place, tmp_path: Path) -> None:
    journal = place.open()
    secret = journal.secret
    journal.close()
    again = place.open()
    assert (again.secret, len(secret)) == (secret, 32)
    again.close()
    (tmp_path / "other").mkdir()
    other = type(place)(tmp_path / "other").open()
    assert other.secret != secret
    other.close()


# Values under keys.


def test_what_is_kept_under_a_key_is_found_before_and_after_it_is_written(place: Place) -> None:
    journal = place.open()
    journal.append(b"paid")
    journal.put("shop", "order", b"head", b"body", at=7.9)
    for _ in range(2):
        found = journal.find("shop", "order")
        assert found is not None
        assert (found.number, found.at, found.head, found.body) == (1, 7, b"head", b"body")
        journal.commit()
    journal.close()
    again = place.open()
    assert (again.find("shop", "order"), again.find("shop", "other")) == (found, None)
    again.put("shop", "order", b"newer", at=8.0)
    again.commit()
    newer = again.find("shop", "order")
    assert newer is not None
    assert (newer.head, newer.body) == (b"newer", None)
    again.close()


def test_two_scopes_and_texts_that_run_together_are_different_keys(place: Place) -> None:
    journal = place.open()
    names = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a", "b\0c"), ("a\0b", "c")]
    for number, (scope, key) in enumerate(names):
        journal.put(scope, key, str(number).encode(), at=1.0)
    journal.commit()
    found = [journal.find(scope, key) for scope, key in names]
    assert [one and one.head for one in found] == [str(number).encode() for number in range(len(names))]
    journal.close()


def test_bodies_are_forgotten_by_key_or_by_scope_and_heads_stay(place: Place) -> None:
    journal = place.open()
    for scope in "ab":
        for key in "xyz":
            journal.put(scope, key, b"head", b"body", at=1.0)
    journal.commit()
    assert (journal.forget("a", "x"), journal.forget("a", "x"), journal.forget("b"), journal.forget("c")) == (
        1,
        0,
        3,
        0,
    )
    found = {scope + key: journal.find(scope, key) for scope in "ab" for key in "xyz"}
    assert {name for name, one in found.items() if one is not None and one.body is not None} == {"ay", "az"}
    assert {one and one.head for one in found.values()} == {b"head"}
    journal.close()


# Values that are packed.

LONG = b"a long answer, " * 1_000


def found_body(journal: Journal, key: str) -> tuple[bytes | None, str]:
    found = journal.find("shop", key)
    assert found is not None
    assert found.head == b"head"
    return found.body, found.problem


def test_what_was_packed_in_whatever_way_is_found_as_it_was_put(place: Place) -> None:
    cipher = XorCipher(3)
    ways = [(False, None), (True, None), (False, cipher), (True, cipher)]
    contents = [b"", b"short", LONG, bytes(range(256)) * 5]
    for number, (compresses, one) in enumerate(ways):
        journal = place.open(packing=Packing(compresses=compresses, cipher=one))
        for place_, content in enumerate(contents):
            journal.put("shop", f"order {number} {place_}", b"head", content, at=1.0)
        assert found_body(journal, f"order {number} 2") == (LONG, "")
        journal.commit()
        journal.close()
    for compresses in (False, True):
        journal = place.open(packing=Packing(compresses=compresses, cipher=cipher))
        for number in range(len(ways)):
            found = [found_body(journal, f"order {number} {place_}") for place_ in range(len(contents))]
            assert found == [(content, "") for content in contents]
        journal.close()


def test_what_is_compressed_is_smaller_and_what_is_encrypted_cannot_be_read_on_disk(tmp_path: Path) -> None:
    sizes: list[int] = []
    for packing in (Packing(), Packing(compresses=True), Packing(cipher=XorCipher(3))):
        place = SqlitePlace(tmp_path)
        place.path = tmp_path / f"{len(sizes)}.journal"
        journal = place.open(packing=packing)
        journal.put("shop", "order", b"head", LONG, at=1.0)
        journal.commit()
        content = b"".join(one.read_bytes() for one in tmp_path.iterdir() if one.name.startswith(place.path.name))
        assert (b"a long answer" in content) == (not sizes)
        sizes.append(len(content))
        journal.close()
    assert sizes[1] < sizes[0] - len(LONG) / 2


@pytest.mark.parametrize(
    ("cipher", "problem"),
    [
        (None, "it is encrypted, and there is no cipher to decrypt it"),
        (XorCipher(4), "it cannot be decrypted (ValueError"),
    ],
)
def test_what_is_encrypted_with_another_key_is_not_read_and_stays(
    place: Place, cipher: XorCipher | None, problem: str
) -> None:
    right = Packing(cipher=XorCipher(3))
    journal = place.open(packing=right)
    journal.put("shop", "order", b"head", b"body", at=1.0)
    journal.commit()
    journal.close()
    for packing in (Packing(cipher=cipher), right):
        journal = place.open(packing=packing)
        body, said = found_body(journal, "order")
        assert body == (b"body" if packing is right else None)
        assert said.startswith("" if packing is right else problem)
        journal.close()


def test_what_the_cipher_cannot_encrypt_is_not_written_and_is_tried_again(place: Place) -> None:
    cipher = XorCipher(3)
    journal = place.open(packing=Packing(cipher=cipher))
    cipher.fails = True
    journal.append(b"entry")
    journal.put("shop", "order", b"head", b"body", at=1.0)
    with pytest.raises(JournalError, match=r"its cipher has failed .*key store is gone"):
        journal.commit()
    cipher.fails = False
    assert journal.has_unwritten
    journal.commit()
    journal.close()
    assert entries_of(place) == [b"entry"]


# Snapshots.


def test_a_snapshot_stands_for_the_entries_before_it_which_can_be_removed(place: Place) -> None:
    journal = place.open()
    made = fill(journal, 10)
    assert journal.snapshot() is None
    assert journal.compact(100, limit=100) == 0
    journal.save(b"ten")
    journal.commit()
    made += fill(journal, 3, begin=11)
    assert journal.compact(4, limit=2) == 2
    assert journal.compact(4, limit=2) == 1
    assert journal.compact(4, limit=2) == 0
    assert journal.compact(100, limit=100) == 7
    journal.close()
    again = place.open()
    snapshot = again.snapshot()
    assert snapshot is not None
    assert (snapshot.number, snapshot.content) == (10, b"ten")
    assert list(again.replay(after=snapshot)) == made[10:]
    assert again.append(b"next") == 14
    again.commit()
    again.save(b"fourteen")
    again.commit()
    again.close()
    assert entries_of(place) == []
    last = place.open()
    with pytest.raises(JournalError, match="damaged at entry 1;"):
        list(last.replay())
    last.close()


# What is too old.

DAYS = 86_400.0
NOW = 1.8e9


def tend(journal: Journal) -> None:
    for _ in range(1_000):
        if not journal.tend():
            return
    raise AssertionError("the upkeep never ends")


def test_bodies_and_then_heads_are_dropped_when_they_are_too_old(place: Place) -> None:
    journal = place.open(retention=Retention(bodies_for=30 * DAYS, heads_for=400 * DAYS))
    for day in range(410):
        journal.put("shop", f"order {day}", b"head", b"body", at=NOW + day * DAYS)
    journal.put("shop", "for ever", b"head", b"body", at=None)
    journal.commit()
    tend(journal)
    found = [journal.find("shop", f"order {day}") for day in range(410)]
    assert [day for day, one in enumerate(found) if one is None] == list(range(9))
    assert [day for day, one in enumerate(found) if one is not None and one.body is None] == list(range(9, 379))
    for_ever = journal.find("shop", "for ever")
    assert for_ever is not None
    assert for_ever.body == b"body"
    journal.close()


def test_a_head_that_is_spared_is_not_dropped_while_it_is(place: Place) -> None:
    journal = place.open(retention=Retention(bodies_for=3 * DAYS, heads_for=5 * DAYS))
    for key in ("order", "other"):
        journal.put("shop", key, b"head", b"body", at=NOW)
    journal.spare("shop", "order")
    for day in range(20):
        journal.put("shop", "newest", b"head", at=NOW + day * DAYS)
    journal.commit()
    tend(journal)
    spared = journal.find("shop", "order")
    assert spared is not None
    assert (spared.head, spared.body, journal.find("shop", "other")) == (b"head", None, None)
    journal.spare("shop", "order", is_spared=False)
    tend(journal)
    assert journal.find("shop", "order") is None
    journal.close()


def test_a_clock_that_leaps_drops_nothing_until_the_leap_has_lasted_a_day(place: Place) -> None:
    journal = place.open()
    for number, at in enumerate([NOW, NOW + 900 * DAYS, NOW + 900.9 * DAYS, NOW + 1, NOW - 900 * DAYS]):
        journal.put("shop", f"order {number}", b"head", at=at)
        journal.commit()
        tend(journal)
        assert journal.find("shop", "order 0") is not None
    journal.close()
    again = place.open()
    for at in (NOW + 2 * 900 * DAYS, NOW + 2 * 900.5 * DAYS):
        again.put("shop", "newest", b"head", at=at)
        again.commit()
        tend(again)
    assert [again.find("shop", f"order {number}") for number in range(5)] == [None] * 5
    again.close()


# Faults.


def test_a_journal_has_one_owner_at_a_time(place: Place) -> None:
    journal = place.open()
    with pytest.raises(JournalError, match="in use by"):
        place.open()
    fill(journal, 3)
    journal.close()
    journal.close()
    assert len(entries_of(place)) == 3


@pytest.mark.parametrize("damage", ["spoil", "lose"])
def test_an_entry_that_is_damaged_or_missing_is_refused(place: Place, damage: str) -> None:
    journal = place.open()
    made = fill(journal, 20)
    journal.close()
    getattr(place, damage)(7)
    again, read = place.open(), list[bytes]()
    with pytest.raises(JournalError, match="is damaged at entry 7; move it away and restore a copy"):
        read.extend(again.replay())
    assert read == made[:6]
    again.close()


def test_what_a_full_disk_does_not_take_is_written_once_there_is_room(place: Place) -> None:
    journal = place.open()
    made = fill(journal, 2)
    place.fill(journal)
    large = b"x" * 100_000
    for content in (large, b"more"):
        journal.append(content)
        journal.put("shop", "order", content[:4], large, at=1.0)
        with pytest.raises(JournalError, match="cannot be written"):
            journal.commit()
        found = journal.find("shop", "order")
        assert found is not None
        assert (found.head, found.body) == (content[:4], large)
    place.make_room(journal)
    journal.commit()
    place.crash(journal)
    assert entries_of(place) == [*made, large, b"more"]


def test_a_full_disk_takes_neither_a_snapshot_nor_a_half(place: Place) -> None:
    journal = place.open()
    made = fill(journal, 2)
    place.fill(journal)
    journal.save(b"x" * 100_000)
    with pytest.raises(JournalError, match="cannot be written"):
        journal.commit()
    journal.append(b"small")
    journal.put("shop", "order", b"head", b"x" * 100_000, at=1.0)
    with pytest.raises(JournalError, match="cannot be written"):
        journal.commit()
    place.crash(journal)
    again = place.open()
    assert (again.snapshot(), again.find("shop", "order"), list(again.replay())) == (None, None, made)
    again.close()


STEPS = st.sampled_from(["append", "put", "commit", "save", "compact", "crash", "full", "room", "forget"])


@pytest.mark.parametrize("kind", [MemoryPlace, SqlitePlace], ids=["memory", "sqlite"])
def test_whatever_happens_between_two_steps_what_was_committed_is_there_and_nothing_else(
    kind: type[Place], tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=repeated(150), deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(STEPS, max_size=40))
    def follow(steps: list[str]) -> None:
        Model(kind(tmp_path_factory.mktemp("disk"))).follow(steps)

    follow()


class Model:
    """What a journal has to hold, beside the journal."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.journal = place.open()
        self.entries: list[bytes] = []
        self.kept: dict[str, bytes | None] = {}
        self.written, self.written_kept = list[bytes](), dict[str, bytes | None]()
        self.saved = 0

    def follow(self, steps: list[str]) -> None:
        for number, step in enumerate([*steps, "crash"]):
            self.take(step, number)
            found = {key: self.journal.find("shop", key) for key in "abc"}
            assert {key: one.body for key, one in found.items() if one is not None} == self.kept
        self.journal.close()

    def take(self, step: str, number: int) -> None:
        journal = self.journal
        match step:
            case "append":
                self.entries.append(f"entry {number} ".encode() * 100)
                journal.append(self.entries[-1])
            case "put":
                key, self.kept["abc"[number % 3]] = "abc"[number % 3], b"body %d" % number * 900 if number % 2 else None
                journal.put("shop", key, b"head", self.kept[key], at=float(number))
            case "full":
                self.place.fill(journal)
            case "room":
                self.place.make_room(journal)
            case "crash":
                self.crash()
            case _:
                try:
                    self.write(step, number)
                except JournalError:
                    self.place.make_room(journal)

    def write(self, step: str, number: int) -> None:
        journal = self.journal
        if step == "compact":
            journal.compact(number, limit=5)
            return
        journal.commit()
        self.written, self.written_kept = list(self.entries), dict(self.kept)
        if step == "save":
            journal.save(b"state")
            journal.commit()
            self.saved = journal.number
        elif step == "forget":
            journal.forget("shop", "a")
            if "a" in self.kept:
                self.kept["a"] = self.written_kept["a"] = None

    def crash(self) -> None:
        self.place.crash(self.journal)
        self.journal = self.place.open()
        self.entries, self.kept = list(self.written), dict(self.written_kept)
        snapshot = self.journal.snapshot()
        assert (snapshot.number if snapshot else 0) == self.saved
        assert list(self.journal.replay(after=snapshot)) == self.entries[self.saved :]


def test_the_heads_of_a_scope_are_listed_written_or_not(place: Place) -> None:
    journal = place.open()
    journal.put("shop", "order 1", b"paid", b"an answer", at=0.0)
    journal.put("shop", "order 2", b"paid", at=0.0)
    journal.put("other", "order 1", b"failed", at=0.0)
    journal.commit()
    journal.put("shop", "order 2", b"refunded", at=0.0)
    journal.put("shop", "order 3", b"open", at=0.0)
    expected = {"order 1": b"paid", "order 2": b"refunded", "order 3": b"open"}
    assert journal.heads("shop") == {key_digest("shop", key): head for key, head in expected.items()}
    assert journal.heads("nothing") == {}
    journal.close()


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 11, 50])
def test_the_heads_of_a_scope_are_listed_in_slices(place: Place, limit: int) -> None:
    journal = place.open()
    expected = dict[bytes, bytes]()
    for number in range(20):
        journal.put("shop", f"order {number}", b"written", at=0.0)
        journal.put("other", f"order {number}", b"of another scope", at=0.0)
        if number == 9:
            journal.commit()
        expected[key_digest("shop", f"order {number}")] = b"written"
    journal.put("shop", "order 3", b"newer", at=0.0)
    expected[key_digest("shop", "order 3")] = b"newer"
    found, after, slices = dict[bytes, bytes](), None, 0
    while not slices or after is not None:
        part, after = journal.slice_of_heads("shop", after=after, limit=limit)
        assert not found.keys() & part.keys()
        assert len(part) <= limit + 10  # What is not written yet comes besides.
        found.update(part)
        slices += 1
    assert (found, slices) == (expected, 10 // limit + 1)
    journal.close()


# Whose it is.


def test_an_epoch_is_higher_than_all_before_and_stays_in_the_journal(place: Place) -> None:
    journal = place.open()
    assert (journal.epoch, journal.latest_epoch) == (0, 0)
    assert (journal.claim(), journal.claim(at_least=10)) == (1, 10)
    journal.append(b"under 10")
    journal.commit()
    journal.close()
    again = place.open()
    assert (again.epoch, again.latest_epoch) == (0, 10)
    again.keep_to(10)
    assert again.claim(at_least=3) == 11
    with pytest.raises(JournalFenced, match="its epoch is 11, and this owner's is 10"):
        again.keep_to(10)
    again.close()
    assert entries_of(place) == [b"under 10"]


def test_nothing_is_written_by_an_owner_before(place: Place) -> None:
    first = place.open()
    first.claim()
    first.append(b"first")
    first.commit()
    place.break_lock()
    second = place.open()
    assert list(second.replay()) == [b"first"]
    second.claim()
    first.append(b"late")
    for write in (first.commit, first.commit_early, lambda: first.compact(1, limit=1), lambda: first.forget("shop")):
        with pytest.raises(JournalFenced):
            write()
    second.append(b"second")
    second.commit()
    first.close()
    second.close()
    assert entries_of(place) == [b"first", b"second"]


def test_a_body_that_is_dropped_is_gone_with_the_next_commit_and_its_head_stays(place: Place) -> None:
    journal = place.open()
    assert journal.find("s", "k") is None
    journal.put("s", "k", b"head", b"body", at=1e9)
    kept = journal.find("s", "k")
    assert kept is not None
    assert kept.body == b"body"
    journal.commit()
    journal.drop_body("s", "k")
    journal.drop_body("s", "other")
    assert journal.find("s", "other") is None
    journal.commit()
    journal.close()
    again = place.open()
    found = again.find("s", "k")
    assert found is not None
    assert (found.head, found.body, found.at) == (b"head", None, int(1e9))
    again.close()


def test_what_was_not_there_is_found_once_it_is_put_however_many_were_looked_for(place: Place) -> None:
    journal = place.open()
    for number in range(2_500):
        assert journal.find("s", f"{number % 1_500}") is None
    for number in range(1_500):
        journal.put("s", f"{number}", b"%d" % number, at=1e9)
        if number % 500 == 0:
            journal.commit()
    journal.commit()
    found = [journal.find("s", f"{number}") for number in range(1_500)]
    assert [row.head for row in found if row is not None] == [b"%d" % number for number in range(1_500)]
    journal.close()
