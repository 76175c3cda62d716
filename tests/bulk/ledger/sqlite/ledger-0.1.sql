BEGIN TRANSACTION;
CREATE TABLE campaign (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  secret TEXT NOT NULL,                    -- key of the Message-IDs
  created_us BIGINT NOT NULL,
  run INTEGER NOT NULL,                    -- how often it was opened to be sent
  config TEXT NOT NULL);
INSERT INTO "campaign" VALUES(1,'news','57526ade860bfff640a42441f68be1a0fb8d2a458fe121f682c1502ffb6ff0be',1800000000000000,1,'{"parts": {"message.html": "1"}}');
CREATE TABLE delivery (                    -- hot and narrow: two updates a message
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  state SMALLINT NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 6),
  epoch INTEGER NOT NULL DEFAULT 0,        -- the run that wrote it last
  attempts SMALLINT NOT NULL DEFAULT 0, doubts SMALLINT NOT NULL DEFAULT 0,
  code SMALLINT, status TEXT, reply TEXT, host TEXT,
  next_us BIGINT, first_us BIGINT, updated_us BIGINT,
  PRIMARY KEY (campaign_id, batch_no, seq)) WITHOUT ROWID;
INSERT INTO "delivery" VALUES(1,0,1,2,1,1,0,250,'2.0.0','2.0.0 Ok: queued as 00000001','relay.example:587',NULL,1800000000000000,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,2,4,1,1,0,550,'5.1.1','5.1.1 No such user','relay.example:587',NULL,1800000000000000,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,3,3,1,1,0,451,'4.7.1','4.7.1 Greylisted, come back','relay.example:587',1800003600000000,1800000000000000,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,4,1,1,1,0,NULL,NULL,NULL,NULL,NULL,1800000000000000,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,5,3,1,1,0,451,'4.7.1','4.7.1 Greylisted, come back','relay.example:587',NULL,1800000000000000,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,6,0,1,0,0,NULL,NULL,NULL,NULL,1800001800000000,NULL,1800000000000000);
INSERT INTO "delivery" VALUES(1,0,7,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "delivery" VALUES(1,0,8,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "delivery" VALUES(1,0,9,6,0,0,0,NULL,NULL,'duplicate of row 1',NULL,NULL,NULL,NULL);
INSERT INTO "delivery" VALUES(1,0,10,4,0,0,0,NULL,NULL,'no address',NULL,NULL,NULL,NULL);
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "memory" VALUES('pace','{}');
CREATE TABLE recipient (                   -- never changed after the load
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  address TEXT,                            -- NULL: the row of the file holds none
  dedupe TEXT,                             -- NULL: not to be mailed
  message_id TEXT,
  vars TEXT NOT NULL,                      -- JSON: column -> cell
  PRIMARY KEY (campaign_id, batch_no, seq),
  UNIQUE (campaign_id, dedupe)) WITHOUT ROWID;
INSERT INTO "recipient" VALUES(1,0,1,'reader1@example.net','reader1@example.net','ybuwl5rhl3rjuycwphwm6uhh6e@example.org','{"email": "reader1@example.net", "name": "Reader 1"}');
INSERT INTO "recipient" VALUES(1,0,2,'reader2@example.net','reader2@example.net','rqk56gyac34y6dmlswjxnk4ese@example.org','{"email": "reader2@example.net", "name": "Reader 2"}');
INSERT INTO "recipient" VALUES(1,0,3,'reader3@example.net','reader3@example.net','ee65ol5laa4xxtgpmhevq2tvsx@example.org','{"email": "reader3@example.net", "name": "Reader 3"}');
INSERT INTO "recipient" VALUES(1,0,4,'reader4@example.net','reader4@example.net','36mqkm5ias6f5c2a732vzup5em@example.org','{"email": "reader4@example.net", "name": "Reader 4"}');
INSERT INTO "recipient" VALUES(1,0,5,'reader5@example.net','reader5@example.net','v5buvk3jushtxte4nqumvarihh@example.org','{"email": "reader5@example.net", "name": "Reader 5"}');
INSERT INTO "recipient" VALUES(1,0,6,'reader6@example.net','reader6@example.net','icpgktmxyhvii3g6nyhaibxr67@example.org','{"email": "reader6@example.net", "name": "Reader 6"}');
INSERT INTO "recipient" VALUES(1,0,7,'reader7@example.net','reader7@example.net','xyy5enrpd2v4pqikju6eum36wy@example.org','{"email": "reader7@example.net", "name": "Reader 7"}');
INSERT INTO "recipient" VALUES(1,0,8,'reader8@example.net','reader8@example.net','eiqfyszg2tbqnseweqyz2nvg6f@example.org','{"email": "reader8@example.net", "name": "Reader 8"}');
INSERT INTO "recipient" VALUES(1,0,9,'reader1@EXAMPLE.net',NULL,NULL,'{"email": "reader1@EXAMPLE.net", "name": "Reader 9"}');
INSERT INTO "recipient" VALUES(1,0,10,NULL,NULL,NULL,'{}');
CREATE TABLE suppression (address TEXT PRIMARY KEY, reason TEXT, at_us BIGINT) WITHOUT ROWID;
CREATE INDEX due ON delivery (campaign_id, next_us) WHERE next_us IS NOT NULL;
COMMIT;
PRAGMA application_id = 1632849236;
PRAGMA user_version = 2;
