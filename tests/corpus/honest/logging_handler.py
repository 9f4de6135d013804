import logging

handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("%(levelname)s %(message)s", datefmt="%H:%M"))
log = logging.getLogger("strategy")
log.setLevel(logging.DEBUG)
log.addHandler(handler)
log.debug("started")
