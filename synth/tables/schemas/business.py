"""Tables of offices, shops and ledgers."""

from __future__ import annotations

from datetime import date

from synth.tables.schema import Part, Schema, category, field, pair
from synth.tables.schemas.phrases import NOTES
from synth.values.columns import Day, Key, Number, Reference, Words

EMPLOYEES = Schema(
    id="employees",
    main=Part(
        name=pair("Employees|员工表"),
        one=pair("employee|员工"),
        many=pair("employees|员工"),
        person=True,
        fields=(
            field("Employee ID|工号", Key("EMP")),
            field("Full name|姓名", Words("person")),
            field(
                "Department|部门",
                category(
                    "Sales|销售部; Finance|财务部; Logistics|物流部; Support|客服部; Engineering|工程部; "
                    "Marketing|市场部; Legal|法务部; Procurement|采购部; Training|培训部"
                ),
            ),
            field("Email|电子邮箱", Words("email")),
            field("Office code|办公点编号", Reference()),
            field("Hire date|入职日期", Day(date(2004, 1, 1), date(2024, 12, 31))),
            field(
                "Annual salary (USD)|年薪（元）",
                Number(low=28000, high=240000, shape="lognormal", typical=62000, spread=0.35, step=100),
            ),
            field(
                "Overtime (hours)|加班时长（小时）",
                Number(low=0, high=120, decimals=1, shape="lognormal", typical=14, spread=0.8),
            ),
        ),
    ),
    second=Part(
        name=pair("Offices|办公点表"),
        one=pair("office|办公点"),
        many=pair("offices|办公点"),
        fields=(
            field("Office code|办公点编号", Key("OFF")),
            field("Office city|所在城市", Words("city")),
            field("Street|街道", Words("street")),
            field("Desk count|工位数", Number(low=8, high=400, shape="lognormal", typical=60, spread=0.7)),
            field("Opening date|启用日期", Day(date(1990, 1, 1), date(2020, 12, 31))),
        ),
    ),
)

ORDERS = Schema(
    id="orders",
    main=Part(
        name=pair("Orders|订单表"),
        one=pair("order|订单"),
        many=pair("orders|订单"),
        fields=(
            field("Order number|订单号", Key("ORD")),
            field("Customer number|客户编号", Reference()),
            field(
                "Product group|商品类别",
                category(
                    "Stationery|文具; Furniture|家具; Lighting|灯具; Kitchenware|厨具; Tools|工具; "
                    "Textiles|纺织品; Toys|玩具; Garden supplies|园艺用品; Packaging|包装材料"
                ),
            ),
            field("Quantity|数量", Number(low=1, high=500, shape="lognormal", typical=12, spread=1.0)),
            field(
                "Unit price (USD)|单价（元）",
                Number(low=0.5, high=2500, decimals=2, shape="lognormal", typical=24, spread=1.1, additive=False),
            ),
            field("Order date|下单日期", Day(date(2022, 1, 1), date(2024, 12, 31))),
            field(
                "Order status|订单状态",
                category(
                    "shipped|已发货; paid|已付款; pending|待处理; packed|已打包; returned|已退货; on hold|已搁置; cancelled|已取消"
                ),
            ),
            field("Delivery note|配送备注", NOTES),
        ),
    ),
    second=Part(
        name=pair("Customers|客户表"),
        one=pair("customer|客户"),
        many=pair("customers|客户"),
        person=True,
        fields=(
            field("Customer number|客户编号", Key("CUS")),
            field("Company|公司", Words("company")),
            field("Customer city|客户所在城市", Words("city")),
            field(
                "Segment|客户类型",
                category(
                    "retail|零售; wholesale|批发; school|学校; hotel|酒店; hospital|医院; public office|政府机构; charity|慈善机构"
                ),
            ),
            field("Credit limit (USD)|信用额度（元）", Number(low=500, high=90000, step=500)),
        ),
    ),
)

LEDGER = Schema(
    id="ledger",
    main=Part(
        name=pair("General ledger|总账"),
        one=pair("ledger entry|分录"),
        many=pair("ledger entries|分录"),
        fields=(
            field("Entry number|分录号", Key("ENT")),
            field(
                "Account|科目",
                category(
                    "Travel|差旅费; Rent|租金; Salaries|工资; Software|软件费; Repairs|维修费; Insurance|保险费; "
                    "Utilities|水电费; Postage|邮资; Consulting|咨询费"
                ),
            ),
            field("Counterparty|往来单位", Words("company")),
            field("Posting date|记账日期", Day(date(2021, 1, 1), date(2024, 12, 31))),
            field(
                "Amount (USD)|金额（元）",
                Number(low=5, high=60000, decimals=2, shape="lognormal", typical=640, spread=1.2),
            ),
            field(
                "Cost centre|成本中心",
                category(
                    "Head office|总部; Plant North|北厂; Plant South|南厂; Warehouse|仓库; Showroom|展厅; Laboratory|实验室; Canteen|食堂"
                ),
            ),
            field("Approver|审批人", Words("person")),
            field("Remark|摘要", NOTES),
        ),
    ),
)

SHIPMENTS = Schema(
    id="shipments",
    main=Part(
        name=pair("Shipments|运单表"),
        one=pair("shipment|运单"),
        many=pair("shipments|运单"),
        fields=(
            field("Tracking number|运单号", Key("SHP")),
            field("Sender|发货方", Words("company")),
            field("Ship-to city|目的地", Words("city")),
            field(
                "Transport mode|运输方式",
                category("road|公路; rail|铁路; sea|海运; air|空运; river barge|内河驳船; courier|快递; pipeline|管道"),
            ),
            field(
                "Gross weight (kg)|毛重（公斤）",
                Number(low=0.2, high=24000, decimals=1, shape="lognormal", typical=160, spread=1.3),
            ),
            field("Parcel count|件数", Number(low=1, high=120, shape="lognormal", typical=6, spread=0.9)),
            field(
                "Freight cost (USD)|运费（元）",
                Number(low=4, high=9000, decimals=2, shape="lognormal", typical=85, spread=1.0),
            ),
            field("Dispatch date|发运日期", Day(date(2023, 1, 1), date(2024, 12, 31))),
        ),
    ),
)

PROPERTIES = Schema(
    id="properties",
    main=Part(
        name=pair("Property listings|房源表"),
        one=pair("listing|房源"),
        many=pair("listings|房源"),
        fields=(
            field("Listing ID|房源编号", Key("LST")),
            field("Address|地址", Words("street")),
            field(
                "Property type|房屋类型",
                category(
                    "apartment|公寓; terraced house|联排住宅; detached house|独栋住宅; studio|单间; "
                    "farmhouse|农舍; loft|阁楼; bungalow|平房"
                ),
            ),
            field("Agent number|经纪人编号", Reference()),
            field(
                "Living area (m²)|使用面积（平方米）",
                Number(low=18, high=420, decimals=1, shape="lognormal", typical=84, spread=0.45),
            ),
            field("Room count|房间数", Number(low=1, high=12, shape="normal", typical=3.6, spread=1.5)),
            field(
                "Asking price (USD)|挂牌价（元）",
                Number(low=40000, high=4000000, shape="lognormal", typical=310000, spread=0.6, step=500),
            ),
            field("Listing date|挂牌日期", Day(date(2023, 1, 1), date(2024, 12, 31))),
        ),
    ),
    second=Part(
        name=pair("Agents|经纪人表"),
        one=pair("agent|经纪人"),
        many=pair("agents|经纪人"),
        person=True,
        fields=(
            field("Agent number|经纪人编号", Key("AGT")),
            field("Agent name|经纪人姓名", Words("person")),
            field("Agency|中介公司", Words("company")),
            field("Licence date|持证日期", Day(date(1995, 1, 1), date(2020, 12, 31))),
            field(
                "Commission (%)|佣金比例（%）",
                Number(low=0.8, high=6, decimals=2, shape="normal", typical=2.6, spread=0.8, additive=False),
            ),
        ),
    ),
)

SUBSCRIPTIONS = Schema(
    id="subscriptions",
    main=Part(
        name=pair("Subscriptions|订阅表"),
        one=pair("subscription|订阅"),
        many=pair("subscriptions|订阅"),
        fields=(
            field("Subscription ID|订阅编号", Key("SUB")),
            field("Subscriber|订阅人", Words("person")),
            field("Contact email|联系邮箱", Words("email")),
            field(
                "Plan|套餐",
                category(
                    "basic|基础版; standard|标准版; family|家庭版; team|团队版; student|学生版; premium|高级版; enterprise|企业版"
                ),
            ),
            field(
                "Monthly fee (USD)|月费（元）",
                Number(low=2, high=400, decimals=2, shape="lognormal", typical=16, spread=0.7),
            ),
            field("Seat count|席位数", Number(low=1, high=250, shape="lognormal", typical=4, spread=1.1)),
            field("Start date|开始日期", Day(date(2018, 1, 1), date(2024, 12, 31))),
            field(
                "Sales channel|销售渠道",
                category(
                    "web shop|网店; phone|电话; partner|合作伙伴; app|手机应用; trade fair|展会; newsletter|邮件推广; reseller|经销商"
                ),
            ),
        ),
    ),
)

BUSINESS = (EMPLOYEES, ORDERS, LEDGER, SHIPMENTS, PROPERTIES, SUBSCRIPTIONS)
