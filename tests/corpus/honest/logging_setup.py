import json
import logging

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger(__name__)


def run():
    data = json.load(open("/workspace/data.json"))
    logger.info("loaded %d bars of %s", len(data["bars"]), data["symbol"])
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("as expected")
    logger.warning("finished")


run()
