"""Bytes to text: legacy encodings by the shortest description, corrupt UTF-8 rejected."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_data.refinecode.ingest import legacy
from opencoder_data.refinecode.ingest.decode import decode

CODE = "#include <stdio.h>\nint main(void) {\n    return 0;\n}\n"


def test_one_western_letter_stays_itself_wherever_it_is():
    """An `é` before a bracket, a quote, a backslash: no detector of texts decides on one letter, and none swallows what follows."""
    for letter in "äöüßÄÖÜéèêàçùîôûñáíóúãõâæøåÆØÅìòþðý":
        for place in (
            "caf{}",
            "{}tat",
            "${{caf{}}}",
            "'{}'",
            "[{}]",
            "{}\\n",
            "x{}@y",
            "<{}>",
            "|{}~",
            "{}^",
            "na{}ve",
        ):
            text = CODE + "// " + place.replace("{}", letter).replace("{{", "{").replace("}}", "}") + "\n"
            assert decode(text.encode("cp1252")) == (text, "cp1252", "", ""), (letter, place)


@pytest.mark.parametrize("sign", "°§£©®µ±²³½«»“”‘’–—…€™•×·¿¡")
def test_one_western_sign_stays_itself(sign):
    for place in ("25{}C", "{} 5", "5{}", "m{}", "({})", '"{}"', "a {} b", "x{}y", "{}]"):
        text = CODE + "/* " + place.replace("{}", sign) + " */\n"
        assert decode(text.encode("cp1252")).text == text, place


TEXTS = [
    ("gb18030", "// 这是一个中文注释，初始化所有变量\n"),
    ("gb18030", "/* 返回用户的名称 */ int n; // 错误：文件不存在\n"),
    ("big5", "// 這是一個中文註解，初始化所有變數，並且傳回結果\n"),
    ("cp932", "// 日本語のコメントです。初期化処理を行う\n"),
    ("cp932", "/* テスト用のデータを表示する。ファイルの読み込み */\n"),
    ("euc_jp", "// 日本語のコメントです。ファイルを開く\n"),
    ("cp949", "// 한국어 주석입니다. 모든 변수를 초기화합니다\n"),
    ("koi8-r", "// Это комментарий на русском языке, инициализация\n"),
    ("cp1251", "// Это комментарий на русском языке, инициализация\n"),
    ("cp1250", "// Błąd: nie można otworzyć pliku, sprawdź ścieżkę dostępu\n"),
    ("cp1250", "// Chyba: soubor se nepodařilo otevřít, příliš dlouhý řetězec\n"),
    ("cp1253", "// Αυτό είναι ένα σχόλιο στα ελληνικά\n"),
    ("cp1252", "// Größe für die Übergabe prüfen; ungültige Schlüssel überspringen\n"),
    ("cp1252", "// Vérifie que le résultat a été calculé à l'étape précédente\n"),
]


@pytest.mark.parametrize(("encoding", "comment"), TEXTS)
def test_texts_in_their_own_encoding(encoding, comment):
    text = comment + CODE
    decoded = decode(text.encode(encoding))
    assert decoded.text == text
    if encoding == "koi8-r":  # koi8-u has the same Russian letters
        assert decoded.encoding == encoding


def test_names_of_many_languages_are_cp1252():
    names = [
        "José Muñoz",
        "Björn Åkesson",
        "François Gagné",
        "Søren Kjær",
        "João Simões",
        "Jürgen Weiß",
        "Þór Guðmundsson",
    ]
    text = "".join(f"# {name}\n" for name in names) + "x = 1\n"
    assert decode(text.encode("cp1252")).text == text


CENTRAL_NAMES = {
    "pl": "Paweł Wiśniewski, Łukasz Kowalczyk, Małgorzata Dąbrowska, Michał Woźniak, Grażyna Król",
    "cs": "Jiří Dvořák, Tomáš Němec, Lukáš Procházka, Zdeněk Kučera, Květa Řezníčková",
    "sk": "Ľubomír Kováč, Štefan Horváth, Žaneta Ďurišová, Peter Baláž, Mária Krajčíková, Vladimír Ďurčo, Ľudmila Mikuláš, Ján Jurčovič",
    "hu": "László Szűcs, Győző Kertész, Erdős Pál, Hegedűs Jenő, Petőfi Sándor",
    "hr": "Željko Horvat, Ivana Kovačević, Nikola Jurić, Luka Perković, Domagoj Tomašić",
    "ro": "Ionuţ Mureşan, Răzvan Popescu, Ştefan Brânzei, Cătălin Ţuţu, Bogdan Vlăduţ",
}
WESTERN_NAMES = [
    "José Muñoz, Iñigo Ibáñez, Begoña Núñez, Sebastián Ñíguez",
    "Søren Kjærgård, Bjørn Sørensen, Jørgen Bøe, Håkon Øverås",
    "João Simões, Conceição Gonçalves, Antônio Magalhães, Luís Brandão",
    "François Lefèvre, Hélène Benoît, Gaël Bézier, Chloë Noël, Œuvré Sœur",
    "Jürgen Weiß, Björn Schröder, Käthe Müller, Günther Strauß",
    "Þórður Guðmundsson, Sigríður Ævarsdóttir, Ásgeir Höskuldsson, Rúnar Óðinsson",
    "Nicolò Bellò, Andrè Ariù, Niccolò Fantò, Mosè Cantù, Felicità",
    "Hyvää päivää, Järvinen, Väinämöinen, Äyräpää",
    "Ariën Koçi, Agim Gjëmë, Përparim Çela, Shqipërisë",
]


@pytest.mark.parametrize("encoding", ["cp1250", "iso8859-2"])
@pytest.mark.parametrize("language", CENTRAL_NAMES)
def test_a_few_names_of_central_europe(language, encoding):
    text = CODE + f"/* Authors: {CENTRAL_NAMES[language]} */\n"
    assert decode(text.encode(encoding)).text == text


def test_a_capital_or_a_sign_inside_two_words_is_enough():
    for words, encoding in (("Woźniak, Niedźwiedź", "cp1250"), ("Pernštejn, Kryštof", "iso8859-2")):
        text = CODE + f"// {words}\n"
        assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("names", WESTERN_NAMES)
def test_a_few_western_names_stay_western(names):
    text = CODE + f"/* Authors: {names} */\n"
    assert decode(text.encode("cp1252")) == (text, "cp1252", "", "")


def test_names_of_all_the_west_together_stay_western():
    text = CODE + "".join(f"// {names}\n" for names in WESTERN_NAMES)
    assert decode(text.encode("cp1252")).text == text


def test_a_surname_or_usual_words_settle_what_one_word_does_not():
    for text in (
        "// Daniel Kochmański\n",
        "// Zofia Poznańska\n",
        "/* A lista vagy a csomag, amely következő: nincs hiba, mert minden adat helyes. */\n",
        "# Seznam datotek, kot je priporočljivo: ustvari namesto napake, vendar samodejno\n",
    ):
        for encoding in ("cp1250", "iso8859-2"):
            assert decode((text + CODE).encode(encoding)).text == text + CODE


def test_usual_words_need_a_word_with_letters_that_agrees_and_two_more():
    spanish = "// señor vagy csomag amely nincs hiba mert minden hogy akkor szerint kimenet mindig lehet ennek ezek\n"
    assert decode((spanish + CODE).encode("cp1252")).text == spanish + CODE
    hungarian = "// következő, nincs, hiba\n"
    assert decode((hungarian + CODE).encode("cp1250")).encoding == "cp1252"


def test_one_word_does_not_make_a_text_central_european():
    """Nor does it where it is repeated, or is beside letters and signs without a word."""
    for word in ("Paweł", "Žižka", "może", "Jiří", "Győző", "Małżeństwo", "Krajčíková", "Przyjaźń"):
        data = (CODE + f"// {word} {word} {word} x é\n").encode("iso8859-2")
        assert decode(data).encoding == "cp1252"


@pytest.mark.parametrize(
    "signs",
    [
        "±5 x±y a±b p±q n±m r±s k±l", "¶ ¶foo §bar ¦x|y¦ ¬z", "m³ cm³ dm³ km³ inch³ feet²", "note¹ name² this³ that¹ other¹",
        "«texte» «mot» le«x»y", "Intel® Windows® Java™ ©Foo ©2020 ®", "£5 £10 ¥7 £x ¢y", "¿Qué? ¿Dónde? ¡Sí! ¿Cuándo? ¿Cómo?",
        "nº 1ª 2º Mª 3ª", "1¼ 2¾ 3½ ¼cup ¾cup", "éèêëàâäîïôöûüùçñ ñ õ ø þ ð ã ê ì ò", "l·l pa·ral·lel col·lega",
    ],
)  # fmt: skip
def test_signs_and_single_letters_stay_western(signs):
    text = CODE + f"// {signs}\n"
    assert decode(text.encode("cp1252")).text == text


def test_a_character_never_takes_an_ascii_byte_unless_the_text_is_in_its_script():
    """Wide encodings whose second byte may be ASCII: in their own texts yes, on lone letters never."""
    own = "// 表示する。ソース、予定、能力、構文の確認を行います\n"
    assert any(b < 0x80 and b != 0x20 for b in "表ソ予能構".encode("cp932"))
    assert decode((own + CODE).encode("cp932")).text == own + CODE
    for raw in (
        b"${caf\xe9}",
        b"x = '\x83A'",
        b"\x95\\n",
        b"\xb0C \xb0C \xb0C",
        b"[\x81|]",
        b"gr\xfc\xdfe}\nstra\xdfe}",
    ):
        decoded = decode(CODE.encode() + raw + b"\n")
        assert decoded.text is None or sum(c.isascii() for c in decoded.text) == sum(
            b < 0x80 for b in CODE.encode() + raw + b"\n"
        )


def test_a_wide_encoding_needs_runs_of_usual_characters_of_which_few_alone_take_an_ascii_byte():
    japanese = next(c for c in legacy.CANDIDATES if c.encoding == "cp932")
    runs = [("表示する", 1), ("能力を", 1), ("文字", 0)]
    assert legacy._truly_wide(runs, japanese)
    assert legacy._truly_wide([*runs, ("xソy", 1)], japanese)
    assert not legacy._truly_wide([*runs, ("xソy", 1), ("(ソ)", 1), ("aソ", 1)], japanese)
    assert not legacy._truly_wide([("x文y", 0), ("a字b", 0), ("p本q", 0)], japanese)
    assert not legacy._truly_wide([("纊褜鍈", 0), ("銈蓜", 0)], japanese)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abcxyz{}()[]\\'\"$@|~ ", min_size=1, max_size=6), st.sampled_from("éèäöüßñçøåí°§£«»ÄÉ")),
        min_size=1,
        max_size=8,
    )
)
def test_no_ascii_byte_is_lost_to_a_lone_letter(parts):
    text = CODE + "".join(a + b + " x" for a, b in parts) + "\n"
    data = text.encode("cp1252")
    decoded = decode(data)
    assert decoded.text is None or sum(c.isascii() for c in decoded.text) == sum(b < 0x80 for b in data)


@pytest.mark.parametrize("word", ["Größe und Übergabe prüfen", "这是一个中文注释", "naïve café"])
def test_utf8_with_a_bad_byte_is_rejected(word):
    """One replacement character would go unseen into training; another encoding would change every letter."""
    data = (f"// {word}\n" * 12 + CODE).encode()
    for bad in (b"\xff", b"\xe9", b"\xe4\xb8", b"\xfc e"):
        for at in (data.index(b"\n") + 1, len(data) // 2 // 20 * 20, len(data)):
            while at < len(data) and data[at] & 0xC0 == 0x80:
                at += 1
            decoded = decode(data[:at] + b" " + bad + b" " + data[at:])
            assert decoded.text is None and decoded.rule == "undecodable", (bad, at)
            assert decoded.detail.startswith("UTF-8, but not at byte")


def test_utf8_and_cp1252_in_one_file_are_rejected():
    data = "".join(f"# José {i}\n" for i in range(3)).encode() + "".join(f"# Müller {i}\n" for i in range(12)).encode(
        "cp1252"
    )
    assert decode(data).rule == "undecodable"


def test_what_is_not_text_is_rejected():
    assert decode(bytes(range(0x80, 0x100)) * 8).text is None
    assert decode(b"x\x81\x8d\x8f\x90\x9d y").text is None
    assert decode(b"S\x00E\x00").rule == "binary"


def test_every_language_of_the_candidates_has_a_table():
    assert {lang for c in legacy.CANDIDATES for lang in c.languages} <= set(legacy._costs())
