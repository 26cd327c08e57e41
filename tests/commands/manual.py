"""Pipelines of the kinds that the MongoDB manual's pages on these stages and operators show.

Written for this test after the examples of "Aggregation Stages", "Expression Operators" and the tutorials (grouping,
joining, filling gaps, searching): the same shapes, and numbers of the same size.
"""

from typing import Any, Final

_HOURS: Final = [{"$date": "2021-05-18T00:00:00.000Z"}, {"$date": "2021-05-18T08:00:00.000Z"}]


def _output(function: Any, **window: Any) -> dict[str, Any]:
    return {"$setWindowFields": {"partitionBy": "$state", "sortBy": {"at": 1}, "output": {"x": {**function, **window}}}}


PIPELINES: Final[list[list[dict[str, Any]]]] = [
    [{"$bucketAuto": {"groupBy": "$price", "buckets": 4}}],
    [{"$bucketAuto": {"groupBy": "$price", "buckets": 5, "granularity": "R5", "output": {"n": {"$sum": 1}}}}],
    [{"$facet": {
        "byTag": [{"$unwind": "$tags"}, {"$sortByCount": "$tags"}],
        "byPrice": [{"$match": {"price": {"$exists": 1}}}, {"$bucket": {"groupBy": "$price", "boundaries": [0, 150,
            300]}}],
        "byYear": [{"$bucketAuto": {"groupBy": "$year", "buckets": 4}}],
    }}],
    [{"$densify": {"field": "timestamp", "range": {"step": 1, "unit": "hour", "bounds": _HOURS}}}],
    [{"$densify": {"field": "altitude", "partitionByFields": ["variety"], "range": {"step": 200, "bounds": "full"}}}],
    [{"$densify": {"field": "altitude", "partitionByFields": ["variety"], "range": {"step": 200,
        "bounds": "partition"}}}],
    [{"$fill": {"sortBy": {"time": 1}, "output": {"price": {"method": "linear"}, "n": {"value": 0}}}}],
    [{"$group": {"_id": "$game", "x": {"$topN": {"output": ["$player", "$score"], "sortBy": {"score": -1}, "n": 3}}}}],
    [{"$group": {"_id": "$game", "x": {"$firstN": {"input": "$score", "n": 5}}, "y": {"$maxN": {"input": "$score",
        "n": 3}}}}],
    [{"$sample": {"size": 3}}],
    [_output({"$sum": "$quantity"}, window={"documents": ["unbounded", "current"]})],
    [_output({"$avg": "$quantity"}, window={"documents": [-1, 0]})],
    [_output({"$push": "$date"}, window={"range": ["unbounded", -10], "unit": "month"})],
    [_output({"$sum": "$price"}, window={"range": [-10, 10]})],
    [_output({"$expMovingAvg": {"input": "$price", "N": 2}})],
    [_output({"$shift": {"output": "$quantity", "by": 1, "default": "none"}})],
    [{"$project": {"stops": {"$range": [0, 100, 25]}}}],
    [{"$project": {"x": {"$reduce": {
        "input": "$arr", "initialValue": {"collapsed": [], "firstValues": []},
        "in": {
            "collapsed": {"$concatArrays": ["$$value.collapsed", "$$this"]},
            "firstValues": {"$concatArrays": ["$$value.firstValues", {"$slice": ["$$this", 1]}]},
        },
    }}}}],
    [{"$project": {"x": {"$reduce": {"input": "$hobbies", "initialValue": "My hobbies include:", "in": {
        "$concat": ["$$value", {"$cond": {
            "if": {"$eq": ["$$value", "My hobbies include:"]}, "then": " ", "else": ", ",
        }}, "$$this"],
    }}}}}],
    [{"$group": {"_id": "$exp", "p": {"$push": "$p"}}}, {"$project": {"product": {"$reduce": {
        "input": "$p", "initialValue": 1, "in": {"$multiply": ["$$value", "$$this"]}}}}}],
    [{"$project": {"items": {"$filter": {"input": "$items", "as": "i", "cond": {"$gte": ["$$i.price", 100]},
        "limit": 1}}}}],
    [{"$project": {"adjusted": {"$map": {"input": "$quizzes", "as": "grade", "in": {"$add": ["$$grade", 2]}}}}}],
    [{"$project": {"x": {"$trim": {"input": "$item", "chars": " sg"}}}}],
    [{"$project": {"t": {"$let": {"vars": {"total": {"$add": ["$price", "$tax"]}}, "in": {"$multiply": ["$$total",
        0.9]}}}}}],
    [{"$project": {"s": {"$zip": {"inputs": ["$a", "$b"], "useLongestLength": True, "defaults": [1, 2]}}}}],
    [{"$lookup": {"from": "inventory", "localField": "item", "foreignField": "sku", "as": "docs"}},
     {"$replaceRoot": {"newRoot": {"$mergeObjects": [{"$arrayElemAt": ["$docs", 0]}, "$$ROOT"]}}},
         {"$project": {"docs": 0}}],
    [{"$lookup": {"from": "warehouses", "let": {"item": "$item", "n": "$ordered"}, "as": "stock", "pipeline": [
        {"$match": {"$expr": {"$and": [{"$eq": ["$stock_item", "$$item"]}, {"$gte": ["$instock", "$$n"]}]}}},
        {"$project": {"stock_item": 0, "_id": 0}}]}}],
    [{"$graphLookup": {"from": "employees", "startWith": "$reportsTo", "connectFromField": "reportsTo",
                       "connectToField": "name", "as": "hierarchy"}}],
    [{"$unionWith": "sales_q2"}, {"$unionWith": "sales_q3"}, {"$unionWith": "sales_q4"},
     {"$group": {"_id": "$item", "total": {"$sum": "$quantity"}}}, {"$sort": {"total": -1}}],
    [{"$match": {"$or": [{"score": {"$gt": 70, "$lt": 90}}, {"views": {"$gte": 1000}}]}}, {"$count": "n"}],
    [{"$match": {"a": {"$bitsAllClear": [1, 5]}}}],
    [{"$match": {"$jsonSchema": {"required": ["name", "major"], "properties": {"name": {"bsonType": "string"}}}}}],
    [{"$vectorSearch": {"index": "i", "path": "plot", "queryVector": [0.1, 0.2], "numCandidates": 150, "limit": 10}}],
    [{"$rankFusion": {"input": {"pipelines": {
        "vector": [{"$vectorSearch": {"index": "i", "path": "e", "queryVector": [1, 2], "numCandidates": 500,
            "limit": 100}}],
        "text": [{"$search": {"phrase": {"query": "star wars", "path": "title"}}}, {"$limit": 20}],
    }}, "combination": {"weights": {"vector": 0.5, "text": 0.5}}}}, {"$limit": 20}],
    [{"$unwind": "$items"}, {"$unwind": {"path": "$items.tags"}}, {"$group": {"_id": "$items.tags", "n": {"$sum": 1}}}],
    [{"$setWindowFields": {"sortBy": {"at": 1}, "output": {"i": {"$integral": {"input": "$kw", "unit": "hour"},
      "window": {"range": ["unbounded", "current"], "unit": "hour"}}}}}],
    [{"$replaceRoot": {"newRoot": {"full": {"$concat": ["$first", " ", "$last"]}}}}],
    [{"$project": {"dates": {"$map": {"input": {"$range": [0, 24]}, "as": "h", "in": {
        "$dateAdd": {"startDate": "$day", "unit": "hour", "amount": "$$h"}}}}}}],
]  # fmt: skip
