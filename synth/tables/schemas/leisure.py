"""Tables of journeys, books, matches and lessons."""

from __future__ import annotations

from datetime import date

from synth.tables.schema import Part, Schema, category, field, pair
from synth.tables.schemas.phrases import BOOK_TITLES
from synth.values.columns import Day, Key, Number, Reference, Words

FLIGHTS = Schema(
    id="flights",
    main=Part(
        name=pair("Flights|航班表"),
        one=pair("flight|航班"),
        many=pair("flights|航班"),
        fields=(
            field("Flight ID|航班编号", Key("FLT")),
            field(
                "Airline|航空公司",
                category(
                    "Northwind Air|北风航空; Blue Heron|蓝鹭航空; Meridian|子午航空; Skylark|云雀航空; Polar Line|极地航空; "
                    "Coastal Jet|海岸航空; Harvest Air|金穗航空; Lantern|明灯航空"
                ),
            ),
            field("Origin|出发地", Words("city")),
            field("Destination|到达地", Words("city")),
            field("Tail number|机尾号", Reference()),
            field("Departure date|起飞日期", Day(date(2023, 1, 1), date(2024, 12, 31))),
            field(
                "Distance (km)|航程（公里）", Number(low=90, high=14500, shape="lognormal", typical=1300, spread=0.8)
            ),
            field("Passenger count|乘客数", Number(low=4, high=420, shape="normal", typical=148, spread=62)),
            field("Delay (min)|延误（分钟）", Number(low=0, high=600, shape="lognormal", typical=9, spread=1.2)),
        ),
    ),
    second=Part(
        name=pair("Aircraft|飞机表"),
        one=pair("aircraft|飞机"),
        many=pair("aircraft|飞机"),
        fields=(
            field("Tail number|机尾号", Key("TN")),
            field(
                "Model|机型",
                category(
                    "Condor 200|神鹰200; Swift 80|雨燕80; Heron 310|苍鹭310; Plover 45|鸻鸟45; Osprey 90|鱼鹰90; "
                    "Merlin 120|灰背120; Kestrel 60|红隼60"
                ),
            ),
            field("Home base|驻地", Words("city")),
            field("Seating capacity|座位数", Number(low=19, high=440, shape="normal", typical=170, spread=70)),
            field("Commissioning date|启用时间", Day(date(1998, 1, 1), date(2021, 12, 31))),
        ),
    ),
)

BOOKS = Schema(
    id="books",
    main=Part(
        name=pair("Book catalogue|图书目录"),
        one=pair("book|图书"),
        many=pair("books|图书"),
        fields=(
            field("Catalogue number|馆藏号", Key("BK")),
            field("Book title|书名", BOOK_TITLES),
            field("Author|作者", Words("person")),
            field(
                "Genre|体裁",
                category(
                    "novel|小说; poetry|诗歌; biography|传记; travel|游记; history|历史; crime|侦探; essays|散文; fable|寓言; drama|戏剧"
                ),
            ),
            field("Publisher code|出版社编号", Reference()),
            field("Publication date|出版日期", Day(date(1972, 1, 1), date(2024, 6, 30))),
            field("Page count|页数", Number(low=32, high=1400, shape="lognormal", typical=280, spread=0.45)),
            field(
                "Shelf price (USD)|定价（元）",
                Number(low=3, high=180, decimals=2, shape="lognormal", typical=17, spread=0.5),
            ),
        ),
    ),
    second=Part(
        name=pair("Publishers|出版社表"),
        one=pair("publisher|出版社"),
        many=pair("publishers|出版社"),
        fields=(
            field("Publisher code|出版社编号", Key("PUB")),
            field("Imprint|出版社名称", Words("company")),
            field("Headquarters|总部", Words("city")),
            field("Backlist size|在售品种数", Number(low=12, high=5200, shape="lognormal", typical=300, spread=1.0)),
            field("Founding date|成立日期", Day(date(1890, 1, 1), date(1971, 12, 31))),
        ),
    ),
)

MATCHES = Schema(
    id="matches",
    main=Part(
        name=pair("League matches|联赛比赛表"),
        one=pair("match|比赛"),
        many=pair("matches|比赛"),
        fields=(
            field("Match ID|比赛编号", Key("MCH")),
            field("Home team|主队", Words("team")),
            field("Away team|客队", Words("team")),
            field(
                "Competition|赛事",
                category(
                    "Premier League|超级联赛; Second League|乙级联赛; National Cup|全国杯; Youth League|青年联赛; "
                    "Super Cup|超级杯; Friendly|友谊赛; Regional Cup|地区杯"
                ),
            ),
            field("Match date|比赛日期", Day(date(2019, 8, 1), date(2024, 12, 31))),
            field("Home score|主队进球", Number(low=0, high=8, shape="normal", typical=1.5, spread=1.3)),
            field("Away score|客队进球", Number(low=0, high=8, shape="normal", typical=1.1, spread=1.2)),
            field("Attendance|观众人数", Number(low=120, high=81000, shape="lognormal", typical=9400, spread=0.9)),
        ),
    ),
)

ENROLMENTS = Schema(
    id="enrolments",
    main=Part(
        name=pair("Course enrolments|选课表"),
        one=pair("enrolment|选课记录"),
        many=pair("enrolments|选课记录"),
        fields=(
            field("Enrolment number|选课编号", Key("ENR")),
            field("Student|学生", Words("person")),
            field(
                "Course|课程",
                category(
                    "Algebra|代数; Botany|植物学; Latin|拉丁语; Statistics|统计学; Ceramics|陶艺; Astronomy|天文学; "
                    "Economics|经济学; Logic|逻辑学; Harmony|和声学"
                ),
            ),
            field(
                "Exam score|考试成绩",
                Number(low=12, high=100, decimals=1, shape="normal", typical=68, spread=14, additive=False),
            ),
            field("Absence count|缺课次数", Number(low=0, high=24, shape="lognormal", typical=2, spread=0.8)),
            field("Enrolment date|选课日期", Day(date(2020, 1, 6), date(2024, 9, 30))),
            field("Campus|校区", Words("city")),
        ),
    ),
)

VEHICLES = Schema(
    id="vehicles",
    main=Part(
        name=pair("Vehicle fleet|车队表"),
        one=pair("vehicle|车辆"),
        many=pair("vehicles|车辆"),
        fields=(
            field("Registration number|车辆登记号", Key("REG")),
            field("Driver|司机", Words("person")),
            field(
                "Body type|车型",
                category(
                    "van|厢式车; lorry|卡车; minibus|小巴; pickup|皮卡; saloon|轿车; estate car|旅行车; tanker|罐车; tractor|牵引车"
                ),
            ),
            field("Depot|车场", Words("city")),
            field(
                "Mileage (km)|行驶里程（公里）",
                Number(low=300, high=640000, shape="lognormal", typical=82000, spread=0.8),
            ),
            field(
                "Fuel consumption (L)|油耗（升）",
                Number(low=20, high=9000, decimals=1, shape="lognormal", typical=760, spread=0.7),
            ),
            field("Last service date|最近保养日期", Day(date(2022, 6, 1), date(2024, 12, 31))),
        ),
    ),
)

LEISURE = (FLIGHTS, BOOKS, MATCHES, ENROLMENTS, VEHICLES)
