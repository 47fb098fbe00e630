"""Tables of laboratories, wards, instruments and logs."""

from __future__ import annotations

from datetime import date

from synth.tables.schema import Part, Schema, category, field, pair
from synth.tables.schemas.phrases import LOG_MESSAGES
from synth.values.columns import Day, Key, Number, Reference, Words

SENSORS = Schema(
    id="sensors",
    main=Part(
        name=pair("Sensor readings|传感器读数"),
        one=pair("reading|读数"),
        many=pair("readings|读数"),
        fields=(
            field("Reading ID|读数编号", Key("RDG")),
            field("Gateway|网关", Words("host")),
            field(
                "Room|房间",
                category(
                    "boiler room|锅炉房; cold store|冷库; server room|机房; workshop|车间; greenhouse|温室; "
                    "loading bay|装卸区; archive|档案室; paint shop|喷漆间"
                ),
            ),
            field(
                "Temperature (°C)|温度（℃）",
                Number(low=-28, high=74, decimals=1, shape="normal", typical=19, spread=11, additive=False),
            ),
            field(
                "Humidity (%)|湿度（%）",
                Number(low=5, high=99, decimals=1, shape="normal", typical=48, spread=16, additive=False),
            ),
            field(
                "Battery (V)|电池电压（V）",
                Number(low=2.1, high=3.7, decimals=2, shape="normal", typical=3.2, spread=0.25, additive=False),
            ),
            field("Reading date|读取日期", Day(date(2023, 1, 1), date(2024, 12, 31))),
        ),
    ),
)

PATIENTS = Schema(
    id="patients",
    main=Part(
        name=pair("Inpatients|住院病人表"),
        one=pair("patient|病人"),
        many=pair("patients|病人"),
        person=True,
        fields=(
            field("Patient number|病历号", Key("PAT")),
            field(
                "Ward|病区",
                category(
                    "Cardiology|心内科; Orthopaedics|骨科; Neurology|神经内科; Surgery|外科; Paediatrics|儿科; "
                    "Oncology|肿瘤科; Urology|泌尿科; Dermatology|皮肤科"
                ),
            ),
            field("Attending doctor|主治医生", Words("person")),
            field("Blood group|血型", category("O|O型; A|A型; B|B型; AB|AB型; O−|O型阴性; A−|A型阴性; B−|B型阴性")),
            field(
                "Body weight (kg)|体重（公斤）",
                Number(low=3, high=180, decimals=1, shape="normal", typical=71, spread=17, additive=False),
            ),
            field(
                "Heart rate (bpm)|心率（次/分）",
                Number(low=38, high=190, shape="normal", typical=78, spread=14, additive=False),
            ),
            field("Admission date|入院日期", Day(date(2023, 1, 1), date(2024, 12, 31))),
            field(
                "Length of stay (days)|住院时长（天）", Number(low=1, high=90, shape="lognormal", typical=5, spread=0.8)
            ),
        ),
    ),
)

EVENTS = Schema(
    id="events",
    main=Part(
        name=pair("Event log|事件日志"),
        one=pair("event|事件"),
        many=pair("events|事件"),
        fields=(
            field("Event ID|事件编号", Key("EVT")),
            field("Host|主机", Words("host")),
            field(
                "Service|服务",
                category(
                    "login|登录; billing|计费; search|搜索; mailer|邮件; storage|存储; scheduler|调度; gateway|网关; metrics|监控"
                ),
            ),
            field(
                "Level|级别",
                category("info|信息; notice|通知; warning|警告; error|错误; debug|调试; alert|警报; critical|严重"),
            ),
            field("Duration (ms)|耗时（毫秒）", Number(low=1, high=60000, shape="lognormal", typical=140, spread=1.4)),
            field(
                "Traffic (bytes)|流量（字节）",
                Number(low=64, high=9000000, shape="lognormal", typical=5200, spread=1.5),
            ),
            field("Log date|记录日期", Day(date(2024, 1, 1), date(2024, 12, 31))),
            field("Message|消息", LOG_MESSAGES),
        ),
    ),
)

SPECIMENS = Schema(
    id="specimens",
    main=Part(
        name=pair("Field specimens|野外样本"),
        one=pair("specimen|样本"),
        many=pair("specimens|样本"),
        fields=(
            field("Specimen ID|样本编号", Key("SPC")),
            field(
                "Species|物种",
                category(
                    "brown trout|褐鳟; pond snail|椎实螺; mayfly|蜉蝣; crayfish|螯虾; water beetle|龙虱; "
                    "leech|水蛭; perch|鲈鱼; newt|蝾螈; caddisfly|石蛾"
                ),
            ),
            field("Collector|采集人", Words("person")),
            field("Station code|站点编号", Reference()),
            field("Collection date|采集日期", Day(date(2019, 3, 1), date(2024, 10, 31))),
            field(
                "Body length (mm)|体长（毫米）",
                Number(low=1, high=600, decimals=1, shape="lognormal", typical=28, spread=0.9, additive=False),
            ),
            field(
                "Water depth (m)|水深（米）",
                Number(low=0.1, high=40, decimals=1, shape="lognormal", typical=1.8, spread=0.8, additive=False),
            ),
            field(
                "pH|酸碱度",
                Number(low=4.2, high=9.6, decimals=2, shape="normal", typical=7.1, spread=0.6, additive=False),
            ),
        ),
    ),
    second=Part(
        name=pair("Stations|采样站点"),
        one=pair("station|站点"),
        many=pair("stations|站点"),
        fields=(
            field("Station code|站点编号", Key("STN")),
            field("Nearest town|最近城镇", Words("city")),
            field(
                "Habitat|生境",
                category("stream|溪流; lake|湖泊; marsh|沼泽; canal|运河; reservoir|水库; spring|泉; estuary|河口"),
            ),
            field(
                "Altitude (m)|海拔（米）",
                Number(low=2, high=2400, shape="lognormal", typical=260, spread=0.9, additive=False),
            ),
            field("Survey start|设站日期", Day(date(1985, 1, 1), date(2018, 12, 31))),
        ),
    ),
)

METERS = Schema(
    id="meters",
    main=Part(
        name=pair("Electricity meters|电表"),
        one=pair("meter|电表"),
        many=pair("meters|电表"),
        fields=(
            field("Meter number|电表号", Key("MTR")),
            field("Account holder|户主", Words("person")),
            field("Supply street|供电街道", Words("street")),
            field(
                "Tariff|电价类别",
                category(
                    "day|日间; night|夜间; flat|单一; two-rate|两部制; industrial|工业; holiday|假日; agricultural|农业"
                ),
            ),
            field(
                "Consumption (kWh)|用电量（kWh）",
                Number(low=4, high=90000, decimals=1, shape="lognormal", typical=980, spread=1.0),
            ),
            field(
                "Peak load (kW)|峰值负荷（kW）",
                Number(low=0.3, high=240, decimals=2, shape="lognormal", typical=5.4, spread=0.8, additive=False),
            ),
            field("Installation date|安装日期", Day(date(2001, 1, 1), date(2023, 12, 31))),
        ),
    ),
)

SCIENCE = (SENSORS, PATIENTS, EVENTS, SPECIMENS, METERS)
