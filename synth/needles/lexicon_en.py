"""English words for the builtin haystack: of our own choosing, by topic. Nouns are countable and regular, verbs are regular."""

from __future__ import annotations

TOPICS: dict[str, tuple[str, str, str]] = {
    "harbour": (
        "harbour ferry pilot anchor rope buoy dock crane tide trawler net lighthouse cargo crew gull hull keel mast "
        "warehouse customs-officer sailor winch jetty barge tugboat signal breakwater chart",
        "moor load steer haul dredge inspect salvage tow",
        "salty weathered tidal rusty seaworthy foggy sheltered northern",
    ),
    "bakery": (
        "bakery oven loaf crust baker dough flour-sack roll pastry counter apprentice tray recipe kneading-table scale "
        "customer bun rye-field miller yeast-jar basket shop-bell cake cooling-rack apron pie biscuit order-book",
        "bake knead weigh measure deliver sweeten slice glaze",
        "warm crisp fragrant floury golden early stale sweet",
    ),
    "observatory": (
        "observatory telescope dome comet mirror astronomer night-sky planet orbit lens moon eclipse catalogue star "
        "spectrum eyepiece meteor meridian logbook tracking-motor sunspot galaxy exposure photograph hilltop clock-drive "
        "nebula shutter",
        "observe calibrate photograph chart record predict align polish",
        "faint distant clear moonless celestial double variable bright",
    ),
    "railway": (
        "railway locomotive carriage platform signal-box timetable conductor tunnel bridge siding ticket passenger "
        "station-master freight-wagon track junction whistle boiler gradient viaduct semaphore sleeper porter depot "
        "level-crossing fireman coupling waiting-room",
        "dispatch couple stoke shunt schedule delay repair reroute",
        "punctual narrow-gauge sooty crowded overnight branch-line delayed single-track",
    ),
    "orchard": (
        "orchard apple pear tree ladder grafting-knife branch blossom frost hedge beehive harvest crate cider-press root "
        "gardener sapling pruning-saw meadow wasp picker plum barn cherry fence ditch wheelbarrow cellar",
        "prune graft harvest water plant press gather shelter",
        "ripe bruised sour leafy sunlit thorny old-fashioned fruitful",
    ),
    "glassworks": (
        "glassworks furnace blowpipe bottle vase window-pane crucible bubble mould glassblower kiln goblet bead shard "
        "prism pattern workshop annealing-oven lampshade cutter decanter ingredient sand-heap polisher mosaic panel "
        "chandelier stopper",
        "melt shape blow cool engrave colour mend heat",
        "molten translucent fragile coloured flawless glowing cloudy hollow",
    ),
    "archive": (
        "archive letter manuscript ledger shelf librarian parchment index-card seal map folio reading-room binding margin "
        "deed register copyist catalogue-number box inventory charter scholar vault petition footnote inscription codex "
        "microfilm",
        "transcribe catalogue restore copy deposit annotate translate date",
        "dusty handwritten brittle unsigned medieval illegible bound forgotten",
    ),
    "hospital": (
        "hospital ward nurse surgeon corridor patient bandage thermometer dispensary chart ambulance stretcher clinic "
        "stethoscope remedy physician bed night-shift visitor symptom vaccine bell kitchen laundry consultation waiting-list "
        "operating-theatre wheelchair",
        "treat examine nurse discharge bandage admit diagnose reassure",
        "feverish careful sterile chronic recovering overworked patient urgent",
    ),
    "theatre": (
        "theatre stage curtain actor rehearsal costume spotlight audience prompter backdrop dressing-room script comedy "
        "tragedy balcony trapdoor orchestra understudy director applause prop puppet premiere mask critic monologue box-office "
        "scene-painter",
        "rehearse perform applaud direct prompt sew announce light",
        "comic tragic painted sold-out nervous velvet backstage improvised",
    ),
    "mountain": (
        "mountain hut glacier ridge climber rope-team guide valley avalanche summit pass boulder crevasse marmot lantern "
        "weather-station stove blanket goat rucksack shepherd cairn waterfall cliff trail snowfield ice-axe gorge",
        "climb mark cross survey rescue belay descend explore",
        "steep icy windswept remote snowy exposed rocky alpine",
    ),
    "pottery": (
        "pottery kiln clay-pit glaze bowl wheel potter jug tile handle slip-jar plate firing shard spout brush ornament "
        "teapot workshop lid figurine cup studio amphora vessel fingerprint rim exhibition",
        "shape glaze fire paint decorate stack trim dry",
        "earthen glazed cracked hand-made rough terracotta blue uneven",
    ),
    "printing": (
        "printing-shop press type-case compositor newspaper ink-roller pamphlet proof margin headline engraving poster "
        "apprentice paper-bale typeface galley editor column almanac misprint subscriber edition calendar woodcut folder "
        "correction bookbinder broadsheet",
        "print typeset proofread publish fold ink number distribute",
        "inky weekly smudged bold illustrated misprinted cheap limited",
    ),
    "waterworks": (
        "waterworks reservoir pump valve pipe aqueduct engineer sluice filter-bed gauge dam fountain canal well leak "
        "turbine inspection-hatch meter hydrant culvert spillway cistern pressure-tower drain main basin weir lock-keeper",
        "pump drain flood filter seal divert repair meter",
        "leaky underground clean pressurised shallow municipal overflowing iron",
    ),
    "school": (
        "school classroom teacher blackboard lesson pupil essay inkwell playground headmistress desk exam dictionary "
        "globe satchel exercise-book corridor grammar prize report chalk timetable choir experiment riddle caretaker "
        "anthem spelling-mistake",
        "teach recite explain punish memorise spell praise test",
        "diligent noisy talkative absent elementary attentive strict bored",
    ),
    "market": (
        "market stall merchant spice-jar bargain scale lantern awning melon silk-roll coin auction basket fishmonger "
        "porter carpet price purse porcelain-cup onion receipt cheese pickpocket tinker quarrel customer square egg",
        "barter sell wrap weigh-out auction display haggle-over purchase",
        "cheap exotic noisy colourful second-hand counterfeit fresh spicy",
    ),
    "clockmaker": (
        "clock pendulum spring gear dial watchmaker chime hour-hand escapement pocket-watch workshop magnifier screw "
        "tower bell repair winding-key cabinet minute sundial jewel balance-wheel case apprentice alarm tick calendar-disc "
        "lathe",
        "wind repair dismantle oil adjust assemble regulate polish",
        "precise brass slow mechanical delicate stopped tiny antique",
    ),
    "apiary": (
        "apiary beekeeper hive swarm honeycomb queen veil smoker meadow drone clover-field jar frame wax-candle sting "
        "heather extractor keeper colony entrance linden nectar-flow brood-box brush foundation winter-cluster swarm-trap "
        "label",
        "smoke feed inspect extract strain hive label tend",
        "buzzing sticky flowering amber gentle angry wild hibernating",
    ),
    "radio": (
        "radio transmitter antenna announcer studio microphone frequency listener broadcast valve-set headphone cable "
        "weather-report switchboard recording engineer interview receiver interference jingle orchestra programme "
        "loudspeaker mast log tape relay wavelength serial",
        "broadcast record tune amplify interrupt transmit rebroadcast interview",
        "noisy live crackling nightly scrambled clear regional short-wave",
    ),
    "weaving": (
        "loom weaver shuttle thread wool-bale carpet pattern dye-vat spindle tapestry cloth spinner bobbin mill ribbon "
        "knot warp border merchant moth fringe embroidery quilt scarf tailor sample cotton-field button",
        "weave dye spin embroider unravel stitch mend wash",
        "woollen striped threadbare crimson fine coarse embroidered soft",
    ),
    "garden": (
        "botanic-garden greenhouse fern orchid seed gardener pond label palm cutting flower-bed path bench herb collection "
        "botanist cactus trellis lily watering-can hedge-maze compost-heap petal thistle specimen beetle moss-wall nursery",
        "plant label water propagate collect prune shade press",
        "tropical rare evergreen damp fragrant wilted exotic shady",
    ),
    "bridge": (
        "bridge engineer arch toll-keeper pillar river scaffold stone girder bolt surveyor pontoon flood inspection "
        "rivet foundation span contractor railing mason embankment crossing plan sketch budget cable model-maker ferryman",
        "build widen survey reinforce support bolt measure demolish",
        "slender cracked massive temporary suspended wooden half-finished stone",
    ),
    "kitchen": (
        "kitchen cook saucepan dumpling ladle soup-bowl pepper-mill banquet steward larder spoon stew guest mushroom "
        "cellar menu pudding kettle onion-soup cheese-board feast waiter roast jam-jar copper-pan leftover table dish",
        "cook stir season taste serve chop simmer boil",
        "savoury burnt hungry spicy generous lukewarm simple delicious",
    ),
}

NOUNS = (
    "question answer idea plan reason story mistake problem letter neighbour friend visitor stranger brother sister "
    "colleague cousin uncle rumour habit custom rule morning evening winter summer journey street corner village town "
    "garden window door room house roof wall stair key lamp chair table drawer notebook pencil map picture song dream "
    "secret promise gift coin debt decision quarrel agreement argument rehearsal meeting committee "
    "council mayor clerk doctor lawyer farmer painter musician poet traveller child grandmother neighbour-boy dog cat "
    "horse sparrow river forest field hill storm cloud shadow colour sound silence moment week month century attempt "
    "accident surprise difficulty advantage opinion method result example description list sketch report suggestion "
    "objection measurement calculation experiment collection exhibition inheritance complaint invitation message "
    "telegram newspaper-cutting photograph umbrella suitcase bicycle overcoat hat shoe ring tool machine engine wheel "
    "instrument button pocket envelope stamp bundle barrel bottle candle fire stove kettle blanket carpet cupboard"
).split()

TRANSITIVE = (
    "notice remember forget-about describe mention discuss examine follow carry open close repair borrow return collect "
    "need want like admire ignore avoid expect prefer trust doubt suspect accuse help invite visit welcome call answer "
    "ask thank praise blame warn remind persuade convince surprise disappoint annoy amuse frighten watch study compare "
    "count measure mark paint clean move lift push pull turn fill empty cover uncover hide discover search inspect test "
    "check approve reject accept refuse demand request order receive deliver offer promise owe inherit share divide "
    "protect guard rescue save waste spoil damage destroy replace improve change finish start continue abandon delay "
    "prevent allow permit forbid support defend attack question investigate report record copy translate publish "
    "announce explain illustrate confuse complicate simplify solve enjoy regret miss"
).split()

INTRANSITIVE = (
    "arrive wait hesitate smile laugh nod shout whisper mutter cough sneeze stumble wander travel work rest "
    "listen talk agree disagree complain apologise succeed fail improve vanish appear remain return hurry march dance "
    "tremble collapse retire resign worry wonder pause stay yawn frown"
).split()

ADJECTIVES = (
    "old new small large long short heavy light dark bright quiet loud strange ordinary curious careful careless honest "
    "clever foolish patient impatient proud modest polite rude generous mean brave timid tired cheerful gloomy famous "
    "unknown local foreign wooden metal paper broken missing borrowed forgotten unexpected necessary useless useful "
    "expensive valuable empty full dry wet cold hot pale green grey yellow red black white narrow wide deep tall round "
    "square crooked straight smooth rough clean dirty simple complicated official private public secret early late "
    "second third last annual weekly brief endless reasonable absurd convincing doubtful obvious hidden familiar "
    "unfamiliar reluctant eager solemn ridiculous splendid shabby sturdy flimsy remarkable tedious thorough stubborn"
).split()

ADVERBS = (
    "slowly quickly quietly loudly carefully carelessly gladly reluctantly politely suddenly gradually eventually "
    "immediately secretly openly nervously calmly angrily patiently twice again once together separately rarely often "
    "almost hardly exactly roughly partly entirely cheerfully solemnly thoroughly briefly honestly stubbornly early late "
    "somehow somewhere nearby outside upstairs downstairs abroad"
).split()

GIVEN = (
    "Adela Anton Beatrix Bruno Carmen Cornelius Dagny Dimitri Edda Emil Farida Florian Greta Gustav Hilda Hugo Ines Ivo "
    "Jolanda Jakob Katarina Konrad Leonie Lorenz Mathilda Milan Nadja Nils Odile Oskar Paulina Pavel Quirin Ramona "
    "Rasmus Selma Simon Tamara Tobias Ulrike Ulf Valentina Viktor Wanda Wilhelm Xenia Yannick Yvette Zacharias Zora "
    "Amira Benedikt Chiara Darius Elif Fergus Giulia Henrik Imke Jonas Kirsten Ludwig Mireille Nestor Olga Piet Rosalind "
    "Stellan Thea Umberto Vera Wenzel Yusuf Zelda"
).split()

SYLLABLES = (
    "al an ar bar bel ber bran brook bur cal car clo cor dal dan del dor dun el en fal fen for gar gil glen gor hal har "
    "hel hol hor il in jar kel ken kir lan lar lin lor mal mar mel mor nar nel nor ol or pel per quin ral ren ros sal sel "
    "sil sor tal tar ten tor ul val var ven vor wal wen win yar zel"
).split()

PLACE_ENDINGS = "ton ham ford by wick mouth field stead bridge haven dale gate minster port wood stow".split()
FAMILY_ENDINGS = "er man son sen ski ini ard eau mann stein well ley worth ett ova berg".split()

TIMES = (
    "in the morning|in the evening|at noon|after dinner|before sunrise|at the end of the week|last winter|that spring|"
    "on the following day|a year later|towards midnight|during the holidays|for several weeks|on the third attempt|"
    "two days before the fair|at the first opportunity|once the rain had stopped|every other Sunday|in those years|"
    "shortly after the war|within an hour|by the time the lamps were lit|at half past four|on a Thursday in October|"
    "long before anybody had thought of it|in the middle of the night|for the better part of an afternoon"
).split("|")

PREPOSITIONS = (
    "beside|behind|near|under|above|in front of|opposite|next to|not far from|inside|outside|at the far end of|"
    "along|across from|between the trees and|at the back of"
).split("|")

STOCK = (
    "Nobody who was there that day has ever given a satisfactory account of what happened next.|"
    "It was, as the saying goes, neither the first time nor the last that this had been tried.|"
    "The matter was put to a vote, and the vote was put off until the following month.|"
    "There is more to be said about this, but it belongs in another chapter of the same story.|"
    "Whether this was wise is a question that has been asked more often than it has been answered.|"
    "All the same, the work had to be done, and in the end it was done on time.|"
    "Those who knew the place well said afterwards that they had seen it coming for years.|"
    "A copy of the minutes is kept in the town hall and may be read there on request.|"
    "What the two of them said to each other on the way home was never written down.|"
    "As far as anyone can tell from the records, no further payment was ever made.|"
    "The cost was shared in equal parts, which pleased some of them and annoyed all the others.|"
    "In the end they did what people usually do in such cases, and that was nothing at all.|"
    "It would be wrong to make too much of this, and just as wrong to leave it out.|"
    "The weather, of which everybody complained, had very little to do with it in the end.|"
    "Had it been up to the younger members, the whole thing would have been over by lunch.|"
    "For a long time afterwards, nothing of the kind was attempted anywhere in the district.|"
    "The instructions were pinned to the door, where everybody could read them and nobody ever did.|"
    "Not a word of this appeared in the papers, although two reporters had been in the room.|"
    "It is still there today, and on a quiet afternoon it can be visited free of charge.|"
    "One can only guess at the reasons, since the people concerned have kept them to themselves."
).split("|")
PEOPLE = (
    "Aldous Bettina Caspian Delphine Eberhard Fenella Gideon Hesper Ignatius Jocasta Kester Lavinia Mordecai Nerissa Orlando "
    "Petra Quentin Rowena Silvan Theodora Ulysses Verity Winifred Xanthe Yorick Zuleika Ambrose Beulah Crispin Dorothea Evander "
    "Flavia Godfrey Hermia Isolde Jasper Keziah Leander Minerva Nicodemus"
).split()
"""Given names for needles: no name in the prose is one of them."""
