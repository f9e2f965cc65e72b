"""Controllers as processes of their own: start, outage, end, and any request at all."""



