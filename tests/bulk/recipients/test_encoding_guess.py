"""Files of names in national encodings: read as they were written, or asked about; never read as something else."""

from __future__ import annotations

import codecs
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from asyncsmtp.bulk.recipients import encoding_guess
from asyncsmtp.bulk.recipients.encoding_guess import CellCollector, guess_encoding
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.bulk.recipients.text_encoding import SettingNeeded
from asyncsmtp.errors import RecipientError

NAMES = {
    "de": "Jörg Käthe Jürgen Bärbel Günther Björn Müller Schröder Weiß Jäger Köhler Böhm Groß Krüger Schäfer Möller "
    "Köln Düsseldorf Nürnberg Würzburg Göttingen Osnabrück Gießen Lübeck Fürth Tübingen",
    "fr": "Hélène François Zoé Noël Jérôme Chloé Anaïs Gaëlle Rémi Cécile Lefèvre Détour Bérard "
    "Garçon Poirié Lévêque "
    "Besançon Orléans Béziers Nîmes Mâcon Évry Sète Angoulême Châteauroux Saint-Étienne",
    "es": "José María Ángel Íñigo Begoña Sofía Andrés Inés Óscar Raúl Muñoz García Núñez Ibáñez Pérez Gómez Jiménez "
    "Málaga Córdoba Cádiz Logroño León Ávila Mérida Jaén Avilés Castellón",
    "pl": "Łukasz Małgorzata Paweł Michał Bożena Grażyna Sławomir Łucja Wójcik Dąbrowska Piątek Zając Król Wróbel "
    "Łódź Kraków Gdańsk Poznań Białystok Częstochowa Rzeszów Toruń Gliwice-Łabędy Płock Świętochłowice",
    "cs": "Jiří Kateřina Tomáš Lukáš Věra Zdeněk Božena Růžena Dvořák Novák Čapek Šťastný Procházka Kučera Růžička "
    "Plzeň České-Budějovice Hradec-Králové Zlín Jihlava-Žďár Děčín Třebíč Přerov Ústí Kroměříž Příbram",
    "ru": "Анна Борис Сергей Наталья Дмитрий Екатерина Иванова Петров Смирнов Кузнецова Попов "
    "Соколова Лебедев Козлова "
    "Москва Новосибирск Екатеринбург Казань Челябинск Самара Омск Ростов Уфа Красноярск Пермь",
    "el": "Γιώργος Μαρία Κωνσταντίνος Ελένη Δημήτρης Αικατερίνη Νικόλαος Παναγιώτης Παπαδόπουλος Γεωργίου Νικολάου "
    "Αθήνα Θεσσαλονίκη Πάτρα Ηράκλειο Λάρισα Βόλος Ιωάννινα Χανιά Καβάλα Καλαμάτα Τρίπολη",
    "tr": "Şükrü Çağla Gülşen Işıl Özgür Uğur Ayşe Yiğit Öztürk Yılmaz Şahin Çelik Yıldırım Aydın Özdemir Güneş "
    "İstanbul İzmir Eskişehir Diyarbakır Muğla Şanlıurfa Çanakkale Kırşehir Iğdır Balıkesir",
    "he": "דוד שרה משה רחל יוסף מרים אברהם רבקה כהן לוי מזרחי פרץ ביטון אברהמי פרידמן שפירא ירושלים חיפה אשדוד "
    "נתניה חולון רחובות אילת טבריה",
    "ar": "محمد فاطمة أحمد عائشة علي مريم خالد ليلى الحسن العلي الشريف المصري "
    "النجار الخطيب السيد القاهرة الرياض دمشق "
    "بغداد عمان بيروت تونس الرباط طرابلس",
    "lt": "Žygimantas Rūta Kęstutis Živilė Šarūnas Ąžuolas Ingrida-Ūla Jūratė Petrauskienė Žukauskas Šimkūnas "
    "Kazlauskaitė Čepaitė Vilnius-Žvėrynas Šiauliai Panevėžys Klaipėda Marijampolė "
    "Mažeikiai Utena-Ąžuolija Kėdainiai "
    "Plungė Telšiai Tauragė Ukmergė Visaginas-Šešta",
    "th": "สมชาย สมหญิง ประเสริฐ มาลี วิชัย สุดา อนุชา กมล ใจดี รักไทย ทองดี "
    "ศรีสุข แก้วมณี บุญมา กรุงเทพ เชียงใหม่ ขอนแก่น "
    "ภูเก็ต นครราชสีมา อุดรธานี ชลบุรี ระยอง",
    "ja": "太郎 花子 健一 美咲 大輔 さくら 翔太 陽子 佐藤 鈴木 高橋 田中 渡辺 伊藤 山本 中村 小林 加藤 "
    "東京都 大阪府 横浜市 "
    "名古屋市 札幌市 福岡市 神戸市 京都市",
    "zh": "伟 芳 娜 秀英 敏 静 丽 强 磊 军 王小明 李丽华 张伟 刘洋 陈静 杨磊 赵敏 黄强 周杰 吴芳 北京市 "
    "上海市 广州市 深圳市 "
    "成都市 重庆市 武汉市",
    "tw": "志明 春嬌 雅婷 怡君 家豪 淑芬 俊傑 美玲 陳志明 林雅婷 黃怡君 張家豪 李淑芬 王俊傑 吳美玲 "
    "劉建國 臺北市 高雄市 "
    "臺中市 臺南市 新竹市 嘉義市 基隆市",
    "ko": "민준 서연 지훈 수빈 현우 지민 영호 은주 김철수 이영희 박민수 최지우 정수진 강동원 "
    "조인성 윤미래 서울특별시 "
    "부산광역시 대구광역시 인천광역시 광주광역시 수원시 제주시",
    "vi": "Hương Dũng Đức Thảo Tuấn Lê Trần Phạm Đặng Bùi Đỗ Hồ Ngô Dương Huế",
}
ENCODINGS = [
    *(("de", each) for each in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-7", "cp1252")),
    *(("de", each) for each in ("iso-8859-15", "mac-roman", "cp850", "cp437")),
    *(("fr", each) for each in ("cp1252", "mac-roman", "cp850", "utf-7")),
    *(("es", each) for each in ("cp1252", "iso-8859-15", "mac-roman", "cp437")),
    *(("pl", each) for each in ("cp1250", "iso-8859-2", "cp852")),
    *(("cs", each) for each in ("cp1250", "iso-8859-2", "mac-latin2")),
    *(("ru", each) for each in ("cp1251", "iso-8859-5", "koi8-r", "cp866", "mac-cyrillic", "utf-16-be")),
    *(("el", each) for each in ("cp1253", "iso-8859-7")),
    *(("tr", each) for each in ("cp1254", "iso-8859-9")),
    *(("he", "cp1255"), ("ar", "cp1256"), ("lt", "cp1257"), ("vi", "cp1258"), ("th", "tis-620")),
    *(("ja", each) for each in ("shift_jis", "cp932", "euc-jp", "iso2022_jp", "utf-16-le")),
    *(("zh", each) for each in ("gbk", "gb18030", "hz")),
    *(("tw", "big5"), ("ko", "euc-kr"), ("ko", "cp949"), ("ko", "iso2022_kr")),
]


def people(language: str, rows: int, encoding: str = "utf-8", seed: int = 1) -> str:
    chosen = random.Random(seed)
    names = [name for name in NAMES[language].split() if name.encode(encoding, "ignore").decode(encoding) == name]
    lines = (f"r{row}@example.org;{chosen.choice(names)};{chosen.choice(names)}\r\n" for row in range(rows))
    return "email;name;city\r\n" + "".join(lines)


async def read(path: Path) -> list[list[str]]:
    rows = [row async for batch in RecipientFile(path, block=4096).batches() for row in batch]
    assert all(isinstance(row, Recipient) for row in rows)
    return [list(row.fields.values()) for row in rows]


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def is_read(path: Path, data: bytes, text: str) -> bool:
    """Whether the file is read; False: it is asked about, with an encoding that is right, and nothing is read."""
    put(path, data)
    asked: SettingNeeded | None = None
    try:
        found = await read(path)
    except SettingNeeded as error:
        asked = error
    if asked is None:
        assert found == [line.split(";") for line in text.splitlines()[1:]]
        return True
    assert "name the right one with encoding=" in str(asked) or "name its encoding with encoding=" in str(asked)
    assert all(f"{each} reads “" in str(asked) for each in asked.values[:3])
    return False


def test_there_are_all_the_encodings() -> None:
    """What people's programs write: at least 24."""
    assert len({codecs.lookup(encoding).name for _, encoding in ENCODINGS}) >= 30


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
async def test_a_few_names_are_never_read_as_something_else(tmp_path: Path, language: str, encoding: str) -> None:
    """They are read as written, or asked about; in capitals and below a header in the same letters as well."""
    for rows in (1, 3, 3, 10):
        text = people(language, rows, encoding, seed=rows)
        header = text.replace("city", NAMES[language].split()[0], 1)
        for each in (text, header, text.upper().replace("EXAMPLE.ORG", "example.org")):
            data = each.encode(encoding, "replace")
            await is_read(tmp_path / "people.csv", data, data.decode(encoding))


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "iso-8859-5"])
async def test_capitals_are_not_the_small_letters_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    """Libraries read a list in capitals in cp1251 as small letters in KOI8-R."""
    text = people("ru", 300).upper().replace("EXAMPLE.ORG", "example.org")
    await is_read(tmp_path / "people.csv", text.encode(encoding), text)


async def test_most_encodings_are_recognized_in_a_long_list(tmp_path: Path) -> None:
    """At least 12 are promised, of UTF-8 and UTF-16 none; a change that recognizes fewer is a loss for users."""
    recognized = set()
    for language, encoding in ENCODINGS:
        text = people(language, 300, encoding)
        if await is_read(tmp_path / "people.csv", text.encode(encoding), text):
            recognized.add(encoding)
    national = {each for each in recognized if not each.startswith("utf-")}
    assert len(national) >= 20, sorted(national)
    assert {"cp1252", "cp1250", "iso-8859-2", "iso-8859-15", "koi8-r", "mac-roman"} <= national
    assert {"utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-7"} <= recognized


MIXED = [
    *(("de", "cs", "cp1250"), ("de", "pl", "cp1250"), ("de", "tr", "cp1254"), ("de", "lt", "cp1257")),
    *(("de", "tr", "iso-8859-9"), ("de", "pl", "iso-8859-2"), ("de", "fr", "cp1252"), ("ru", "el", "utf-7")),
]


@pytest.mark.parametrize(("most", "few", "encoding"), MIXED)
@pytest.mark.parametrize("number", [1, 5, 20])
async def test_a_few_names_of_another_language_count(
    tmp_path: Path, most: str, few: str, encoding: str, number: int
) -> None:
    """Of 300 German names and five Czech ones in cp1250, the Czech ones tell that it is not cp1252."""
    lines = people(most, 300, encoding).splitlines(keepends=True)
    others = people(few, number, encoding, 2).splitlines(keepends=True)[1:]
    text = "".join((*lines[:200], *others, *lines[200:]))
    await is_read(tmp_path / "people.csv", text.encode(encoding), text)


async def test_a_late_name_counts_as_well(tmp_path: Path) -> None:
    """The whole file is looked at, not its beginning alone."""
    text = people("de", 6_000) + "late@example.org;Dvořák;Plzeň\r\n"
    assert not await is_read(tmp_path / "people.csv", text.encode("cp1250"), text)


async def test_a_single_name_may_tell_all(tmp_path: Path) -> None:
    """“Jörg” in cp1252 is a word in no encoding that reads its bytes otherwise; no library is asked."""
    text = "email;name;city\r\nann@example.org;Jörg;Köln\r\nbob@example.org;Müller;Wien\r\n"
    assert await is_read(tmp_path / "people.csv", text.encode("cp1252"), text)


async def test_the_question_shows_three_cells_for_each_encoding(tmp_path: Path) -> None:
    """So that a person sees which one is right."""
    path = tmp_path / "people.csv"
    path.write_bytes(people("fr", 3).encode("cp1252"))
    with pytest.raises(SettingNeeded) as caught:
        await read(path)
    shown = re.findall(r"([\w-]+) reads ((?:“[^”]*”(?:, )?)+)", str(caught.value))
    assert [encoding for encoding, _ in shown][:1] == ["cp1252"]
    assert 2 <= len(shown) <= 5
    assert all(1 <= cells.count("“") <= 3 for _, cells in shown)
    assert len({cells for _, cells in shown}) == len(shown)


async def test_without_the_library_more_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read by half of the evidence; what can be told without it still is."""
    monkeypatch.setattr(encoding_guess, "find_spec", lambda name: None)
    text = people("pl", 300)
    assert not await is_read(tmp_path / "people.csv", text.encode("cp1250"), text)
    await test_a_single_name_may_tell_all(tmp_path)


@pytest.mark.parametrize("text", ["+49-151;a", "ann+news-x@example.org;b", "1+1;c", "a+AB-c@example.org;d"])
async def test_a_plus_sign_is_not_utf_7(tmp_path: Path, text: str) -> None:
    """Telephone numbers, tags of addresses, sums."""
    whole = f"email;name;city\r\nbob@example.org;{text}\r\n" if "@" not in text else f"email;name\r\n{text}\r\n"
    (tmp_path / "people.csv").write_text(whole, "ascii", newline="")
    assert await read(tmp_path / "people.csv") == [line.split(";") for line in whole.splitlines()[1:]]


async def test_a_broken_line_in_utf_8_is_no_other_encoding(tmp_path: Path) -> None:
    """It is named, rather than all the others read as something else."""
    text = people("fr", 30)
    (tmp_path / "people.csv").write_bytes(text.encode() + "zoe@example.org;Zoé;x\r\n".encode("cp1252"))
    with pytest.raises(RecipientError, match=r"line 32: byte 0xE9 .* is not UTF-8"):
        await read(tmp_path / "people.csv")


def cells(*blocks: bytes) -> Iterable[bytes]:
    collector = CellCollector()
    for block in blocks:
        collector.add(block)
    collector.add(b"", final=True)
    return collector.cells


def test_cells_are_the_same_wherever_the_file_is_cut() -> None:
    """And in constant memory: of many, those with a rare byte are kept."""
    data = people("ja", 50).encode("cp932")
    assert list(cells(data)) == list(cells(*(data[at : at + 7] for at in range(0, len(data), 7))))
    many = "".join(f"Jörg{number};" for number in range(5000)) + "\nDvořák"
    kept = cells(many.encode("cp1250"))
    assert len(list(kept)) < 1100
    assert "Dvořák".encode("cp1250") in kept


@pytest.mark.parametrize("data", [b"\x81\x8d\x8f", b"\xff\xfe\xfd;\x90"])
def test_what_is_no_text_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(SettingNeeded, match=r"is not UTF-8|not certain"):
        guess_encoding("people.csv", [data])
