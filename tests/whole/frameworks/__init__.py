"""The same small application in Flask, Django and Falcon, as their users write it: nothing in it knows TAFE.

Routes: GET / (text), POST /echo (what came in, as JSON), GET /stream (four pieces), GET /cookies (sets two,
shows what it was sent), GET /boom (raises); anything else is the framework's own 404.
"""
