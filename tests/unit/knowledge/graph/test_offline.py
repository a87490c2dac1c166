"""The graph by rule: deterministic, bounded, independent of order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shield.knowledge.graph.offline import FRAGMENTS, SEPARATOR, entity_type, extract, keywords, merge

TEXT = (
    "The Krypton pump feeds the cooling loop. A fault E4711 of the Krypton pump stops the turbine within seconds. "
    "Call reset_valve() or set pump.max_rate in config.toml; the readTimeout of the PLC is ignored."
)


class TestExtract:
    def test_phrases_and_identifiers_are_entities(self) -> None:
        names = {entity.name: entity.type for entity in extract(TEXT, 30, 30).entities}
        assert names["Cooling Loop"] == "concept"
        assert {name for name, kind in names.items() if kind == "identifier"} >= {
            "E4711", "reset_valve", "pump.max_rate", "config.toml", "readTimeout", "PLC",
        }  # fmt: skip

    def test_the_last_word_is_singular_so_that_both_forms_are_one_entity(self) -> None:
        names = [entity.name for entity in extract("Cooling loops are wide. The cooling loop is long.", 8, 8).entities]
        assert names.count("Cooling Loop") == 1

    def test_relations_join_neighbours_of_one_sentence_only(self) -> None:
        pairs = {(r.source, r.target) for r in extract("Apples grow in orchards. Whales swim in oceans.", 8, 8).relations}
        assert pairs
        assert not any("Whale" in pair[0] + pair[1] and "Orchard" in pair[0] + pair[1] for pair in pairs)

    def test_a_description_is_a_short_verbatim_part_of_the_text(self) -> None:
        long = "Zebra " + "wandering along endless riverbanks " * 40 + "reaches Arkona."
        for entity in extract(long, 8, 8).entities:
            assert len(entity.description) <= 140
            assert entity.description in long

    @given(st.text(max_size=600), st.integers(1, 12), st.integers(1, 12))
    def test_any_text_gives_a_bounded_consistent_graph(self, text: str, entities: int, relations: int) -> None:
        found = extract(text, entities, relations)
        names = [entity.name for entity in found.entities]
        assert len(names) == len(set(names)) <= entities
        assert len(found.relations) <= relations
        for entity in found.entities:
            assert entity.name.strip()
            assert entity.description
            assert entity.type == entity_type(entity.name)
        for relation in found.relations:
            assert relation.source < relation.target
            assert {relation.source, relation.target} <= set(names)
        assert extract(text, entities, relations) == found

    def test_a_megabyte_of_one_word_does_not_hang(self) -> None:
        assert extract("x" * 1_000_000, 8, 8).entities == ()


class TestMerge:
    @given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "ee", "f" * 9, " a ", ""]), max_size=12), st.integers(0, 12))
    def test_in_parts_or_at_once_in_any_order_it_is_the_same(self, parts: list[str], cut: int) -> None:
        whole = merge(parts)
        assert merge([merge(parts[:cut]), *reversed(parts[cut:])]) == whole
        assert merge([whole]) == whole
        assert len([part for part in whole.split(SEPARATOR) if part]) <= FRAGMENTS


class TestKeywords:
    def test_the_question_is_the_high_level_and_its_phrases_the_low_level(self) -> None:
        high, low = keywords("Which fault stops the   Krypton pump?")
        assert high == ["Which fault stops the Krypton pump?"]
        assert any("Krypton" in word for word in low)

    @given(st.text(max_size=200))
    def test_neither_is_ever_empty(self, text: str) -> None:
        high, low = keywords(text)
        assert len(high) == 1
        assert low
